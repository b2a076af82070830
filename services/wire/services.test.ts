import { loadPackageDefinition } from '@grpc/grpc-js';
import { expect, test } from 'vitest';

import { loadProtos } from './loader.ts';
import { bookieService, brokerService } from './services.ts';

interface Method {
  readonly path: string;
  readonly requestStream: boolean;
  readonly responseStream: boolean;
  readonly originalName?: string;
}

function outline(service: Readonly<Record<string, Method>>): unknown {
  return Object.entries(service)
    .map(([name, { path, requestStream, responseStream, originalName }]) => {
      return { name, path, requestStream, responseStream, originalName };
    })
    .toSorted((a, b) => a.name.localeCompare(b.name));
}

test('paths and kinds of streams are those of the .proto files', () => {
  const loaded = loadPackageDefinition(
    loadProtos('magnetar/v1/broker.proto', 'magnetar/v1/bookie.proto'),
  ) as unknown as {
    magnetar: { v1: Record<'Broker' | 'Bookie', { service: Record<string, Method> }> };
  };
  expect(outline(brokerService)).toEqual(outline(loaded.magnetar.v1.Broker.service));
  expect(outline(bookieService)).toEqual(outline(loaded.magnetar.v1.Bookie.service));
});
