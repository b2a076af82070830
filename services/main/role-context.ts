import type { Environment } from '../runtime/environment.ts';
import type { Lifecycle } from '../runtime/lifecycle.ts';

/** What a role is given to start: it adds what it opens to the lifecycle. */
export interface RoleContext {
  readonly environment: Environment;
  readonly lifecycle: Lifecycle;
}
