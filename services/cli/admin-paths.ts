/** Names on the command line as paths of the REST API. */
import { UsageError } from './usage-error.ts';

const SCHEME = 'persistent://';

/** An argument as it was given. */
interface Given {
  readonly argument: string;
  readonly text: string;
  readonly command: string;
}

/** A name as a part of a path; `what` says which one of the argument. @throws UsageError */
function part({ argument, text, command }: Given, name: string, what = 'name'): string {
  const refuse = (why: string): never => {
    throw new UsageError(`${argument} is '${text}'; the ${what} must ${why}`, command);
  };
  if (name === '') return refuse('not be empty');
  // Who sends a path takes these for steps within it: the request would be about something else.
  if (name === '.' || name === '..') return refuse(`not be "${name}"`);
  try {
    return encodeURIComponent(name);
  } catch {
    return refuse('be well-formed Unicode');
  }
}

/** @throws UsageError */
export function tenantPath(tenant: string, command: string): string {
  return `tenants/${part({ argument: 'tenant', text: tenant, command }, tenant)}`;
}

/** TENANT/NAMESPACE, encoded. @throws UsageError */
export function namespaceParts(text: string, command: string): string {
  const [tenant, namespace, more] = text.split('/');
  if (tenant === undefined || namespace === undefined || more !== undefined) {
    throw new UsageError(`namespace is '${text}'; it must have the form TENANT/NAMESPACE`, command);
  }
  const given = { argument: 'namespace', text, command };
  return `${part(given, tenant, 'tenant')}/${part(given, namespace, 'namespace')}`;
}

/** @throws UsageError */
export function topicPath(text: string, command: string): string {
  const parts = (text.startsWith(SCHEME) ? text.slice(SCHEME.length) : text).split('/');
  if (parts.length === 1 && !text.startsWith(SCHEME)) parts.unshift('public', 'default');
  const [tenant, namespace, topic] = parts;
  if (parts.length !== 3 || tenant === undefined || namespace === undefined || topic === undefined) {
    const forms = 'NAME, TENANT/NAMESPACE/NAME or persistent://TENANT/NAMESPACE/NAME';
    throw new UsageError(`topic is '${text}'; it must have the form ${forms}`, command);
  }
  const given = { argument: 'topic', text, command };
  const names = [part(given, tenant, 'tenant'), part(given, namespace, 'namespace'), part(given, topic, 'last part')];
  return `persistent/${names.join('/')}`;
}

/** @throws UsageError */
export function subscriptionPath(topic: string, subscription: string, command: string): string {
  const given = { argument: 'subscription', text: subscription, command };
  return `${topicPath(topic, command)}/subscription/${part(given, subscription)}`;
}
