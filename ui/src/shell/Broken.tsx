// SPDX-License-Identifier: Apache-2.0
import { Button } from "../design/Button";
import { Notice } from "../design/Problem";
import { Page } from "./Page";

/** A page that failed, or whose files are gone because the server was upgraded meanwhile. */
export function Broken({ error }: { error: unknown }) {
  return (
    <Page title="This page failed">
      <Notice kind="bad" title="The page could not be shown">
        <p>If the server was upgraded, a reload gets the new dashboard.</p>
        <p className="small">{error instanceof Error ? error.message : String(error)}</p>
        <div>
          <Button kind="primary" onClick={() => window.location.reload()}>
            Reload
          </Button>
        </div>
      </Notice>
    </Page>
  );
}
