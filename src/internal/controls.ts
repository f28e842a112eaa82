/** Control characters, of C0, DEL and C1: what no name and no header may hold. */
// oxlint-disable-next-line no-control-regex -- control characters are what it looks for
export const controls = /[\u0000-\u001f\u007f-\u009f]/
