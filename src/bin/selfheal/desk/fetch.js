// fetch for a service that heals itself: it waits when it is told to, and tries again; it never throws on a page.
//
//   import { fetchHealed } from "/fetch.js";
//   const { ok, data, stale } = await fetchHealed("/api/manager/assistance", {}, (s) => show(`Loading… (retrying in ${s} s)`));
//
// `ok`: there is data. `stale`: it is older, and being refreshed. Otherwise `error` says why, in the service's words.

const SAFE = ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"];
const sleep = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));

export async function fetchHealed(url, options = {}, onWait = () => {}, attempts = 4) {
  const method = (options.method ?? "GET").toUpperCase();
  const headers = new Headers(options.headers);
  // The same key with every attempt: what has been done once is answered and not done again.
  if (!SAFE.includes(method) && !headers.has("idempotency-key")) headers.set("idempotency-key", `"${crypto.randomUUID()}"`);
  let last = { ok: false, error: "Service temporarily unavailable" };
  for (let attempt = 1; ; attempt++) {
    last = await once(url, { ...options, headers }, attempt);
    if (last.ok || last.final || attempt === attempts) return last;
    onWait(last.retryAfter);
    await sleep(last.retryAfter);
  }
}

async function once(url, options, attempt) {
  // 1, 2, 4 s, spread, where nobody says for how long.
  const guess = 2 ** (attempt - 1) * (0.5 + Math.random() / 2);
  try {
    const reply = await fetch(url, options);
    const body = await reply.json().catch(() => null);
    const said = Number(reply.headers.get("retry-after")) || body?.retryAfter;
    if (reply.ok && body !== null) return { ok: true, data: body, stale: body.cached === true, retryAfter: said };
    const error = body?.error ?? "Service temporarily unavailable";
    const final = reply.status < 500 && ![408, 409, 425, 429].includes(reply.status);
    return { ok: false, final, error, code: body?.code, data: body?.cachedData, retryAfter: said || guess };
  } catch {
    return { ok: false, error: "Network request failed", retryAfter: guess };
  }
}
