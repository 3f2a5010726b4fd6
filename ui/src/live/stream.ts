// SPDX-License-Identifier: Apache-2.0
// The one connection that tells what changes. A browser has six connections for a server, so hidden
// tabs have none: it is closed some time after the tab was hidden, at once if another tab of the
// dashboard is shown, and continues where it was when the tab is shown again.
import { eventTypeValues } from "../../generated/values";
import type { Schemas } from "../api/client";

export type LiveEvent = Schemas["Event"];

export interface Connection {
  phase: "off" | "connecting" | "live" | "lost";
  /** Until when everything on the screen is known to be true. */
  asOf: number;
}

interface Receiver {
  event(event: LiveEvent): void;
  /** Events were missed: everything has to be read again. */
  gap(): void;
  /** The connection is refused; resolves to whether to try again. */
  refused(): Promise<boolean>;
}

const HIDDEN_FOR = 30_000;
const TICK = 15_000;
const SHOWN = "shown";

export class Stream {
  private source: EventSource | null = null;
  private since = "";
  private failures = 0;
  private retry: ReturnType<typeof setTimeout> | undefined;
  private hiding: ReturnType<typeof setTimeout> | undefined;
  private ticking: ReturnType<typeof setInterval> | undefined;
  private ticked = 0;
  private tabs: BroadcastChannel | null = null;
  private listeners = new Set<() => void>();
  private connection: Connection = { phase: "off", asOf: 0 };

  constructor(private readonly receiver: Receiver) {}

  readonly subscribe = (listener: () => void): (() => void) => {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  };

  readonly get = (): Connection => this.connection;

  /** Begin after the snapshot that `cursor` names; nothing happens if it is open. */
  start(cursor: string): void {
    if (this.connection.phase !== "off") return;
    this.since = cursor;
    document.addEventListener("visibilitychange", this.visibility);
    window.addEventListener("online", this.reopen);
    this.ticked = Date.now();
    this.ticking = setInterval(this.tick, TICK);
    this.tabs = new BroadcastChannel("novitai-tabs");
    this.tabs.onmessage = () => {
      if (document.visibilityState === "hidden") this.rest();
    };
    if (document.visibilityState === "visible") this.show();
    else this.set({ phase: "connecting", asOf: Date.now() });
  }

  stop(): void {
    document.removeEventListener("visibilitychange", this.visibility);
    window.removeEventListener("online", this.reopen);
    clearInterval(this.ticking);
    clearTimeout(this.hiding);
    this.tabs?.close();
    this.close();
    this.set({ phase: "off", asOf: 0 });
  }

  /** Open the connection, after hidden tabs were asked to close theirs. */
  private show(): void {
    this.tabs?.postMessage(SHOWN);
    this.open();
  }

  /** Have no connection until the tab is shown. */
  private rest(): void {
    clearTimeout(this.hiding);
    this.close();
    this.lost();
  }

  private open(): void {
    this.close();
    if (this.connection.phase === "off") this.set({ phase: "connecting", asOf: Date.now() });
    const source = new EventSource(`/api/events/stream?since=${encodeURIComponent(this.since)}`);
    this.source = source;
    source.onopen = () => {
      this.failures = 0;
      this.set({ phase: "live", asOf: Date.now() });
    };
    source.onerror = () => {
      this.lost();
      // The browser reconnects by itself unless the server refused the connection.
      if (source.readyState === EventSource.CLOSED) void this.again();
    };
    for (const type of eventTypeValues) source.addEventListener(type, this.message);
    source.addEventListener("gap", () => this.receiver.gap());
  }

  private close(): void {
    clearTimeout(this.retry);
    this.source?.close();
    this.source = null;
  }

  private readonly message = (message: MessageEvent<string>): void => {
    this.since = message.lastEventId;
    this.receiver.event(JSON.parse(message.data) as LiveEvent);
  };

  private lost(): void {
    if (this.connection.phase !== "lost") this.set({ phase: "lost", asOf: Date.now() });
  }

  private async again(): Promise<void> {
    this.close();
    this.failures += 1;
    if (!(await this.receiver.refused())) return;
    const wait = Math.min(1000 * 2 ** this.failures, 30_000);
    this.retry = setTimeout(() => this.open(), wait * (0.5 + Math.random() / 2));
  }

  private readonly visibility = (): void => {
    clearTimeout(this.hiding);
    if (document.visibilityState === "hidden") {
      this.hiding = setTimeout(() => this.rest(), HIDDEN_FOR);
    } else if (this.source === null) {
      this.show();
    }
  };

  private readonly reopen = (): void => {
    if (document.visibilityState === "visible") this.open();
  };

  /** A machine that slept has a connection that nothing arrives on. */
  private readonly tick = (): void => {
    const slept = Date.now() - this.ticked > 3 * TICK;
    this.ticked = Date.now();
    if (slept) this.reopen();
  };

  private set(connection: Connection): void {
    this.connection = connection;
    for (const listener of this.listeners) listener();
  }
}
