// Original file: proto/magnetar/internal/v1/records.proto


/**
 * `bookies/cookies/ID` (LP-27).
 */
export interface BookieCookie {
  /**
   * Format version, 1.
   */
  'format'?: (number);
  /**
   * The instance id of the bookie's folder, 16 bytes.
   */
  'instance'?: (Buffer | Uint8Array | string);
}

/**
 * `bookies/cookies/ID` (LP-27).
 */
export interface BookieCookie__Output {
  /**
   * Format version, 1.
   */
  'format': (number);
  /**
   * The instance id of the bookie's folder, 16 bytes.
   */
  'instance': (Buffer);
}
