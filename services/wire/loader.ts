/**
 * The `.proto` files as proto-loader reads them: for the internal records, for the type generator, and for tests. Nothing
 * that the SDK imports may import this file.
 */
import { fileURLToPath } from 'node:url';

import { loadSync, type Options, type PackageDefinition } from '@grpc/proto-loader';

/** The folder that imports in `.proto` files start from. */
export const protoDir: string = fileURLToPath(new URL('../..', import.meta.resolve('#proto/magnetar/v1/broker.proto')));

/** How decoded messages look; the generated types follow it. 64-bit integers are `Long`s. */
export const loaderOptions: { readonly enums: typeof String; readonly defaults: true; readonly oneofs: true } = {
  enums: String,
  defaults: true,
  oneofs: true,
};

/** Reads `.proto` files, named from `protoDir` on. Takes milliseconds: once per process. */
export function loadProtos(...files: readonly string[]): PackageDefinition {
  return loadSync([...files], { ...loaderOptions, includeDirs: [protoDir] } satisfies Options);
}
