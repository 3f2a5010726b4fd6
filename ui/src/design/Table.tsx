// SPDX-License-Identifier: Apache-2.0
// A table for ten or ten thousand rows: it scrolls with the page and renders the visible rows.
import { useWindowVirtualizer } from "@tanstack/react-virtual";
import { useEffect, useLayoutEffect, useRef, useState, type ReactNode } from "react";

import { isTyping } from "../shell/keys";
import "./table.css";

export interface Column<R> {
  id: string;
  title: string;
  cell: (row: R) => ReactNode;
  /** Makes the heading a button that sorts. */
  order?: (a: R, b: R) => number;
  numeric?: boolean;
  /** The narrowest page that shows the column. */
  from?: "medium" | "wide" | "widest";
  /** The heading of the row. */
  head?: boolean;
}

export interface Sorting {
  /** The ID of a column, after `-` if descending. */
  by: string;
  change: (by: string) => void;
}

export interface Selection {
  has: (key: string) => boolean;
  toggle: (key: string) => void;
  toggleAll: () => void;
  all: boolean;
}

interface Props<R> {
  label: string;
  columns: Column<R>[];
  rows: R[];
  rowKey: (row: R) => string;
  rowName?: (row: R) => string;
  sorting?: Sorting;
  selection?: Selection;
}

const ROW = 41;
const PLAIN = 60;

export function Table<R>(props: Props<R>) {
  const { label, rows, rowKey, selection, sorting } = props;
  const columns = props.columns;
  const body = useRef<HTMLTableSectionElement>(null);
  const [margin, setMargin] = useState(0);
  const [active, setActive] = useState(-1);
  const wanted = useRef(-1);
  const virtual = rows.length > PLAIN;
  const virtualizer = useWindowVirtualizer({
    count: virtual ? rows.length : 0,
    estimateSize: () => ROW,
    overscan: 12,
    scrollMargin: margin,
    getItemKey: (index) => {
      const row = rows[index];
      return row === undefined ? index : rowKey(row);
    },
  });
  useLayoutEffect(() => {
    const top = body.current?.getBoundingClientRect().top ?? 0;
    const next = Math.round(top + window.scrollY);
    if (Math.abs(next - margin) > 2) setMargin(next);
  });

  useEffect(() => {
    const move = (event: KeyboardEvent) => {
      if (isTyping(event) || event.metaKey || event.ctrlKey || event.altKey) return;
      if (!isCurrent(body.current)) return;
      if (event.key === "j" || event.key === "k") {
        if (rows.length === 0) return;
        event.preventDefault();
        const step = event.key === "j" ? 1 : -1;
        const next = Math.min(rows.length - 1, Math.max(0, active + step));
        wanted.current = next;
        setActive(next);
        if (virtual) virtualizer.scrollToIndex(next);
      } else if (event.key === "x" && selection !== undefined) {
        const row = rows[active];
        if (row !== undefined) selection.toggle(rowKey(row));
      }
    };
    document.addEventListener("keydown", move);
    return () => document.removeEventListener("keydown", move);
  }, [active, rows, rowKey, selection, virtual, virtualizer]);

  // The row may appear only after the page has scrolled, so this looks after each rendering.
  useEffect(() => {
    if (wanted.current < 0) return;
    const row = body.current?.querySelector<HTMLElement>(`[data-index="${wanted.current}"]`);
    if (!row) return;
    wanted.current = -1;
    const target = row.querySelector<HTMLElement>("a") ?? row.querySelector<HTMLElement>("button, input");
    target?.focus({ preventScroll: true });
    row.scrollIntoView({ block: "nearest" });
  });

  const items = virtual
    ? virtualizer.getVirtualItems()
    : rows.map((_, index) => ({ index, start: 0, end: 0 }));
  const before = virtual ? (items[0]?.start ?? margin) - margin : 0;
  const after = virtual ? virtualizer.getTotalSize() - ((items.at(-1)?.end ?? margin) - margin) : 0;
  const width = columns.length + (selection ? 1 : 0);

  return (
    <div className="table-place">
      <table className="table" aria-rowcount={rows.length + 1}>
        <caption className="hidden">{label}</caption>
        <thead>
          <tr aria-rowindex={1}>
            {selection && (
              <th scope="col" className="pick">
                <input
                  type="checkbox"
                  aria-label="Select all rows"
                  checked={selection.all}
                  onChange={selection.toggleAll}
                />
              </th>
            )}
            {columns.map((column) => (
              <Heading key={column.id} column={column} sorting={sorting} />
            ))}
          </tr>
        </thead>
        <tbody ref={body}>
          {before > 0 && <Spacer height={before} width={width} />}
          {items.map(({ index }) => {
            const row = rows[index];
            if (row === undefined) return null;
            const key = rowKey(row);
            return (
              <tr
                key={key}
                data-index={index}
                aria-rowindex={index + 2}
                className={selection?.has(key) ? "picked" : undefined}
                ref={virtual ? virtualizer.measureElement : undefined}
              >
                {selection && (
                  <td className="pick">
                    <input
                      type="checkbox"
                      aria-label={`Select ${props.rowName?.(row) ?? key}`}
                      checked={selection.has(key)}
                      onChange={() => selection.toggle(key)}
                    />
                  </td>
                )}
                {columns.map((column) => {
                  const Cell = column.head ? "th" : "td";
                  return (
                    <Cell
                      key={column.id}
                      scope={column.head ? "row" : undefined}
                      className={names(column)}
                    >
                      {column.cell(row)}
                    </Cell>
                  );
                })}
              </tr>
            );
          })}
          {after > 0 && <Spacer height={after} width={width} />}
        </tbody>
      </table>
    </div>
  );
}

/** Whether keys belong to this table: it has the focus, or is the first and none has it. */
function isCurrent(body: HTMLElement | null): boolean {
  const table = document.activeElement?.closest("table") ?? document.querySelector("table");
  return body !== null && table !== null && table.contains(body);
}

function Heading<R>({ column, sorting }: { column: Column<R>; sorting: Sorting | undefined }) {
  const mine = sorting?.by.replace(/^-/, "") === column.id;
  const down = mine && sorting?.by.startsWith("-");
  const direction = mine ? (down ? "descending" : "ascending") : undefined;
  return (
    <th scope="col" className={names(column)} aria-sort={direction}>
      {sorting && column.order ? (
        <button
          type="button"
          className="sort"
          onClick={() => sorting.change(mine && !down ? `-${column.id}` : column.id)}
        >
          {column.title}
          <span aria-hidden="true">{mine ? (down ? " ↓" : " ↑") : ""}</span>
        </button>
      ) : (
        column.title
      )}
    </th>
  );
}

function Spacer({ height, width }: { height: number; width: number }) {
  return (
    <tr aria-hidden="true">
      <td colSpan={width} className="spacer" style={{ height }} />
    </tr>
  );
}

function names<R>(column: Column<R>): string {
  return [column.numeric ? "numeric" : "", column.from ? `from-${column.from}` : ""].join(" ").trim();
}

/** Sort rows by the column that `by` names; unknown columns change nothing. */
export function sorted<R>(rows: R[], columns: Column<R>[], by: string): R[] {
  const down = by.startsWith("-");
  const order = columns.find((one) => one.id === by.replace(/^-/, ""))?.order;
  if (order === undefined) return rows;
  return rows.toSorted((a, b) => (down ? -order(a, b) : order(a, b)));
}
