import type { LabelText, MetricSource } from '../runtime/metrics.ts';
import type { About } from './http.ts';
import type { HttpPart } from './http-part.ts';
import type { RoleContext } from './role-context.ts';

export interface HttpSide {
  /** 0: a free one. */
  readonly port: number;
  readonly about: About;
  /** Why requests cannot be taken at the moment; undefined: they are. */
  readonly unready: () => string | undefined;
  /** What /metrics asks, and the labels of all that they tell. */
  readonly sources: readonly MetricSource[];
  readonly common: LabelText;
  /** What is served beside that. */
  readonly parts: readonly HttpPart[];
}

/**
 * Opens the HTTP side of a role, which closes with its lifecycle; resolves with the port. What it needs is loaded here, when
 * the role serves already.
 *
 * @throws PORT_IN_USE
 */
export async function openHttpSide({ environment, lifecycle }: RoleContext, side: HttpSide): Promise<number> {
  const [{ startHttp }, { metricsEndpoint }] = await Promise.all([
    import('./http.ts'),
    import('./metrics-endpoint.ts'),
  ]);
  const { port, about, unready, sources, common } = side;
  const { clock, logger } = environment;
  const endpoint = metricsEndpoint({ clock, sources, about, common });
  lifecycle.add('metrics', async () => await Promise.resolve(endpoint.close()));
  const parts = [endpoint.part, ...side.parts];
  const http = await startHttp({ port, about, unready, logger, parts });
  lifecycle.add('HTTP server', async () => await http.close());
  return http.port;
}
