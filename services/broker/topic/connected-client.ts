/** Who is at the other end of a stream. */
export interface ConnectedClient {
  /** As host:port, or what stands for it. */
  readonly address: string;
  /** What the client says of itself: name and version. */
  readonly version: string;
  /** When the producer or consumer connected: milliseconds since 1970-01-01 UTC. */
  readonly since: number;
}
