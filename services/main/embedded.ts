/** `magnetar/embedded`: a durable broker inside an app's or a test's process. */
import { type EmbeddedOptions, type EmbeddedStandalone, openEmbedded } from './embedded-standalone.ts';

export type { EmbeddedClientOptions, EmbeddedOptions, EmbeddedStandalone } from './embedded-standalone.ts';

/**
 * Starts a broker, its bookies and its metadata in this process; it takes requests when the promise resolves. Nothing
 * of it is shared with others in the process: any number may run, each on a folder of its own.
 *
 * @throws MagnetarError INVALID_ARGUMENT; PORT_IN_USE; FOLDER_IN_USE when another one, in this process or elsewhere, has
 *   the folder; FOLDER_NOT_WRITABLE, FOLDER_VERSION; DATA_LOSS, METADATA_DAMAGED, STORE_FAILED when the folder is damaged
 */
export async function startStandalone(options: EmbeddedOptions = {}): Promise<EmbeddedStandalone> {
  return await openEmbedded(options);
}
