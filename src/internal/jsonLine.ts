// `JSON.stringify` leaves these raw, and terminals and log readers act on them: DEL and the C1 controls (a lone 0x9b
// starts an ANSI sequence), line and paragraph separators, and the marks that reorder or hide text.
const dangerous = /[\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/g

const escape = (character: string): string => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`

/** `json` on one physical line without a raw control character. It parses to the same value. */
export const toLine = (json: string): string => json.replace(dangerous, escape)
