// SPDX-License-Identifier: Apache-2.0

interface Body {
  code: string;
  message: string;
  details?: unknown;
  requestId?: string;
}

/** The server answered with an error. */
export class ApiError extends Error {
  readonly code: string;
  readonly details: unknown;
  readonly requestId: string | undefined;

  constructor(
    readonly status: number,
    body: Body,
    readonly retryAfter: number,
  ) {
    super(body.message);
    this.code = body.code;
    this.details = body.details;
    this.requestId = body.requestId;
  }

  /** The wrong fields of a request, with one message each. */
  get fields(): { field: string; message: string }[] {
    if (!Array.isArray(this.details)) return [];
    return this.details.filter(
      (one): one is { field: string; message: string } =>
        typeof one?.field === "string" && typeof one?.message === "string",
    );
  }
}

/** No response came. */
export class Unreachable extends Error {
  constructor() {
    super("The server does not answer. Check that it runs and that you are connected.");
  }
}

export function isEnvelope(value: unknown): value is { error: Body } {
  if (typeof value !== "object" || value === null || !("error" in value)) return false;
  const { error } = value;
  return typeof error === "object" && error !== null && "code" in error && "message" in error;
}

/** Whether the same read may succeed soon. */
export function isPassing(error: unknown): boolean {
  return (
    error instanceof Unreachable ||
    (error instanceof ApiError && [408, 429, 502, 503, 504].includes(error.status))
  );
}
