/** Names on the command line as paths of the REST API. */
import { UsageError } from './usage-error.ts';

const SCHEME = 'persistent://';

/** A name as a part of a path. @throws UsageError */
function part(what: string, name: string, command: string): string {
  if (name === '') throw new UsageError(`the ${what} is empty`, command);
  try {
    return encodeURIComponent(name);
  } catch {
    throw new UsageError(`the ${what} is not well-formed Unicode`, command);
  }
}

/** @throws UsageError */
export function tenantPath(tenant: string, command: string): string {
  return `tenants/${part('tenant', tenant, command)}`;
}

/** TENANT/NAMESPACE, encoded. @throws UsageError */
export function namespaceParts(text: string, command: string): string {
  const [tenant, namespace, more] = text.split('/');
  if (tenant === undefined || namespace === undefined || more !== undefined) {
    throw new UsageError(`namespace is '${text}'; it must have the form TENANT/NAMESPACE`, command);
  }
  return `${part('tenant', tenant, command)}/${part('namespace', namespace, command)}`;
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
  const names = [part('tenant', tenant, command), part('namespace', namespace, command), part('topic', topic, command)];
  return `persistent/${names.join('/')}`;
}

/** @throws UsageError */
export function subscriptionPath(topic: string, subscription: string, command: string): string {
  return `${topicPath(topic, command)}/subscription/${part('subscription', subscription, command)}`;
}
