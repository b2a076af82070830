/**
 * Names that users choose.
 *
 * A topic is `persistent://tenant/namespace/topic`; `tenant/namespace/topic` is short for it, and `topic` means
 * `persistent://public/default/topic`. Tenants and namespaces take A-Z a-z 0-9 and _ . : = -, as in Pulsar. The last
 * part, and the names of subscriptions, producers and consumers, take any character that is not a control character; a
 * topic's takes no '/' either. All are 1 to 255 characters long; "." and ".." are refused, since no URL can carry them
 * as a part of a path.
 */
import { MagnetarError } from '../../lib/errors.ts';

/** The parts of a topic's name. */
export interface TopicName {
  readonly domain: 'persistent';
  readonly tenant: string;
  readonly namespace: string;
  readonly local: string;
  /** `persistent://tenant/namespace/local`: the same for all ways to write the name. */
  readonly full: string;
}

const HIGHEST_LENGTH = 255;
const RESTRICTED = /^[A-Za-z0-9_.:=-]+$/;
/** Control characters, line and paragraph separators, and halves of surrogate pairs. */
const UNPRINTABLE = /[\p{Cc}\p{Cs}\p{Zl}\p{Zp}]/u;

const RESTRICTED_RULE = 'A-Z a-z 0-9 and _ . : = -';

/** Why a part does not do; undefined when it does. */
function flaw(what: string, value: string, allowed: 'restricted' | 'liberal'): string | undefined {
  if (value.length === 0 || value.length > HIGHEST_LENGTH) {
    return `the ${what} has ${value.length} characters, allowed are 1 to ${HIGHEST_LENGTH}`;
  }
  if (value === '.' || value === '..') return `the ${what} must not be "${value}"`;
  if (allowed === 'restricted') {
    return RESTRICTED.test(value) ? undefined : `the ${what} may have ${RESTRICTED_RULE} alone`;
  }
  return UNPRINTABLE.test(value) ? `the ${what} must not have control characters` : undefined;
}

/** The value in quotes, on one line, cut where it is long. */
function shown(value: string): string {
  const quoted = JSON.stringify(value.length > HIGHEST_LENGTH ? `${value.slice(0, HIGHEST_LENGTH)}…` : value);
  return quoted.replace(/[\u007f-\u009f\u2028\u2029]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`);
}

function invalid(text: string, why: string): MagnetarError {
  return new MagnetarError('TOPIC_NAME_INVALID', `topic name ${shown(text)} is not valid: ${why}`, {
    details: { field: 'topic', value: text.slice(0, HIGHEST_LENGTH) },
  });
}

/**
 * Takes a topic's name apart. Names that end in `-partition-N` are plain topics.
 *
 * @throws TOPIC_NAME_INVALID; UNSUPPORTED for `non-persistent://`.
 */
export function parseTopicName(text: string): TopicName {
  let rest = text;
  const scheme = text.indexOf('://');
  if (scheme >= 0) {
    const domain = text.slice(0, scheme);
    if (domain === 'non-persistent') {
      throw new MagnetarError('UNSUPPORTED', `topic name ${shown(text)}: only persistent:// topics are supported`);
    }
    if (domain !== 'persistent') throw invalid(text, 'it must begin with persistent://, or have no "://"');
    rest = text.slice(scheme + 3);
  }
  const parts = rest.split('/');
  if (parts.length === 1 && scheme < 0) parts.unshift('public', 'default');
  const [tenant, namespace, local] = parts;
  if (parts.length !== 3 || tenant === undefined || namespace === undefined || local === undefined) {
    throw invalid(text, 'it must be persistent://tenant/namespace/topic, tenant/namespace/topic or topic');
  }
  const why =
    flaw('tenant', tenant, 'restricted') ??
    flaw('namespace', namespace, 'restricted') ??
    flaw('last part', local, 'liberal');
  if (why !== undefined) {
    throw invalid(text, `${why}; it must be persistent://tenant/namespace/topic, tenant/namespace/topic or topic`);
  }
  return { domain: 'persistent', tenant, namespace, local, full: `persistent://${tenant}/${namespace}/${local}` };
}

/** What else has a name. */
export type NameKind = 'subscription' | 'producer' | 'consumer';

/**
 * Checks a name that a user chose: 1 to 255 characters, no control characters.
 *
 * @throws INVALID_ARGUMENT
 */
export function checkName(kind: NameKind, value: string): void {
  const why = flaw('name', value, 'liberal');
  if (why === undefined) return;
  throw new MagnetarError('INVALID_ARGUMENT', `${kind} name ${shown(value)} is not valid: ${why}`, {
    details: { field: `${kind} name`, value: value.slice(0, HIGHEST_LENGTH) },
  });
}
