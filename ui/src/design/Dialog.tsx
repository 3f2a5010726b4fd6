// SPDX-License-Identifier: Apache-2.0
import { AlertDialog } from "@base-ui/react/alert-dialog";
import { Dialog as Base } from "@base-ui/react/dialog";
import type { ReactNode } from "react";

import { Button } from "./Button";
import { Problem } from "./Problem";
import "./dialog.css";

interface Props {
  open: boolean;
  close: () => void;
  title: string;
  children: ReactNode;
  wide?: boolean;
}

export function Dialog({ open, close, title, children, wide = false }: Props) {
  return (
    <Base.Root open={open} onOpenChange={(now) => !now && close()}>
      <Base.Portal>
        <Base.Backdrop className="dialog-back" />
        <Base.Popup className={wide ? "dialog wide" : "dialog"}>
          <div className="row apart">
            <Base.Title className="dialog-title">{title}</Base.Title>
            <Base.Close className="button">Close</Base.Close>
          </div>
          {children}
        </Base.Popup>
      </Base.Portal>
    </Base.Root>
  );
}

interface QuestionProps extends Omit<Props, "wide"> {
  /** The verb that the button names. */
  verb: string;
  danger?: boolean;
  busy: boolean;
  error: Error | null;
  act: () => void;
}

/** A question before something that costs, saves or destroys. */
export function Question({ open, close, title, children, verb, danger, busy, error, act }: QuestionProps) {
  return (
    <AlertDialog.Root open={open} onOpenChange={(now) => !now && close()}>
      <AlertDialog.Portal>
        <AlertDialog.Backdrop className="dialog-back" />
        <AlertDialog.Popup className="dialog">
          <AlertDialog.Title className="dialog-title">{title}</AlertDialog.Title>
          {error && <Problem error={error} />}
          <AlertDialog.Description render={<div className="stack" />}>{children}</AlertDialog.Description>
          <div className="row">
            <Button kind={danger ? "danger" : "primary"} busy={busy} onClick={act}>
              {verb}
            </Button>
            <AlertDialog.Close className="button">Cancel</AlertDialog.Close>
          </div>
        </AlertDialog.Popup>
      </AlertDialog.Portal>
    </AlertDialog.Root>
  );
}
