export function charts() {}
