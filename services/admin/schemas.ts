/** Pieces of the routes' JSON schemas. They check requests, and make up the OpenAPI document. */

type Schema = Readonly<Record<string, unknown>>;

function text(description: string): Schema {
  return { type: 'string', description };
}

export const tenantParam: Schema = { tenant: text('The tenant') };
export const namespaceParams: Schema = { ...tenantParam, namespace: text('The namespace, without the tenant') };
export const topicParams: Schema = { ...namespaceParams, topic: text('The last part of the topic name, URL-encoded') };
export const subscriptionParams: Schema = { ...topicParams, subName: text('The subscription, URL-encoded') };

export function params(properties: Schema): Schema {
  return { type: 'object', properties, required: Object.keys(properties) };
}

/** A query parameter `force`. */
export function forceQuery(description: string): Schema {
  return { type: 'object', properties: { force: { type: 'boolean', default: false, description } } };
}

/** A whole number from `minimum` on. */
export function wholeNumber(minimum: number, description: string): Schema {
  return { type: 'integer', minimum, maximum: Number.MAX_SAFE_INTEGER, description };
}

export function names(description: string): Schema {
  return { description, type: 'array', items: { type: 'string' } };
}

const REASONS: Readonly<Record<number, string>> = {
  400: 'The request is malformed',
  403: 'The request comes from a web page of another origin',
  404: 'Something that is named does not exist',
  409: 'It exists already, is not empty, or was changed by somebody else at the same time',
  412: 'A name or position is not valid, or somebody is connected',
  413: 'The body is too large',
  415: 'The body is of a media type that is not supported',
  500: 'The server has failed, or stored data is lost or damaged',
  501: 'What is asked for, or stored, is of a kind that this version does not support',
  503: 'The broker cannot do it for the time being; try again',
  504: 'It was not done in time, or it is not known whether it was; try again',
};

/** What every route may be refused with. */
const ALWAYS: readonly number[] = [500, 501, 503, 504];
/** What every change may be refused with, too: a body is read where none is expected, and somebody else may change the same. */
const FOR_A_CHANGE: readonly number[] = [400, 403, 409, 413, 415];

/** The responses of a route: what it gives, and the errors that it may give beside those of every route. */
export function responses(success: Schema, ...errors: readonly number[]): Schema {
  const reason = { type: 'string', description: 'One line that names the thing, its value and what is allowed' };
  const properties = { reason };
  const failed = [...errors, ...ALWAYS].map((status): [number, Schema] => {
    return [status, { description: REASONS[status], type: 'object', properties, required: ['reason'] }];
  });
  return { ...success, ...Object.fromEntries(failed) };
}

/** The responses of a route that changes something, and has nothing to say when it has succeeded. */
export function changeResponses(...errors: readonly number[]): Schema {
  return responses({ 204: { description: 'Done', type: 'null' } }, ...FOR_A_CHANGE, ...errors);
}

/** A success with a JSON body. */
export function ok(schema: Schema): Schema {
  return { 200: schema };
}
