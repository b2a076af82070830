/** A request over HTTP, as a shell makes it. */
export interface HttpRequest {
  readonly method: 'GET' | 'PUT' | 'POST' | 'DELETE';
  /** http://HOST:PORT/PATH, the path encoded. */
  readonly url: string;
  /** As JSON; undefined: none. */
  readonly body: string | undefined;
  /** The request fails when there is no answer within so many ms. */
  readonly timeoutMs: number;
}

export interface HttpResponse {
  readonly status: number;
  /** By lower-case name. */
  readonly headers: Readonly<Record<string, string | readonly string[] | undefined>>;
  readonly body: Buffer;
}
