import { describe, expect, test } from 'vitest';
import { checkName, parseTopicName } from './topic-name.ts';

describe('parseTopicName', () => {
  test.each([
    ['orders', 'persistent://public/default/orders'],
    ['acme/shop/orders', 'persistent://acme/shop/orders'],
    ['persistent://acme/shop/orders', 'persistent://acme/shop/orders'],
    ['orders-partition-3', 'persistent://public/default/orders-partition-3'],
    ['a_b.c:d=e-f/1/Ünïcode name, ok?', 'persistent://a_b.c:d=e-f/1/Ünïcode name, ok?'],
  ])('%s', (text, full) => {
    const name = parseTopicName(text);
    expect(name.full).toBe(full);
    expect(parseTopicName(name.full)).toEqual(name);
    expect(`${name.domain}://${name.tenant}/${name.namespace}/${name.local}`).toBe(full);
  });

  test.each([
    ['', 'the last part has 0 characters, allowed are 1 to 255'],
    ['a//b', 'the namespace has 0 characters'],
    ['a/b', 'it must be persistent://tenant/namespace/topic, tenant/namespace/topic or topic'],
    ['a/b/c/d', 'it must be persistent://tenant/namespace/topic'],
    ['persistent://orders', 'it must be persistent://tenant/namespace/topic'],
    ['kafka://a/b/c', 'it must begin with persistent://'],
    ['ä/b/c', 'the tenant may have A-Z a-z 0-9 and _ . : = - alone'],
    ['a/b c/d', 'the namespace may have'],
    ['a/b/c\nd', 'the last part must not have control characters'],
    ['a/b/\ud800', 'the last part must not have control characters'],
    ['a/b/..', 'the last part must not be ".."'],
    ['x'.repeat(256), 'the last part has 256 characters'],
  ])('refuses %j', (text, why) => {
    expect(() => parseTopicName(text)).toThrow(expect.objectContaining({ code: 'TOPIC_NAME_INVALID' }));
    expect(() => parseTopicName(text)).toThrow(why);
    expect(() => parseTopicName(text)).toThrow(/^topic name "[^\n]*" is not valid: [^\n]*$/);
  });

  test('takes names up to 255 characters', () => {
    const part = 'x'.repeat(255);
    expect(parseTopicName(`${part}/${part}/${part}`).local).toBe(part);
  });

  test('says that topics without persistence are not supported', () => {
    expect(() => parseTopicName('non-persistent://a/b/c')).toThrow(expect.objectContaining({ code: 'UNSUPPORTED' }));
  });

  test('a long name is cut in the message', () => {
    expect(() => parseTopicName(`a/b/${'x'.repeat(100_000)}`)).toThrow(/^.{1,600}$/);
  });
});

describe('checkName', () => {
  test('takes what people call subscriptions', () => {
    for (const name of ['s', 'billing service', 'a/b', '日本', 'x'.repeat(255)]) {
      expect(() => checkName('subscription', name)).not.toThrow();
    }
  });

  test.each(['', 'a\u0000b', 'x'.repeat(256), '..'])('refuses %j', (name) => {
    expect(() => checkName('producer', name)).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' }));
    expect(() => checkName('producer', name)).toThrow(/^producer name "/);
  });
});
