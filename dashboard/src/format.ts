// Numbers and times in words.

const counts = new Intl.NumberFormat(undefined);
const short = new Intl.NumberFormat(undefined, { notation: "compact", maximumFractionDigits: 1 });

export function count(number: number): string {
  return number < 10_000 ? counts.format(number) : short.format(number);
}

export function dollars(amount: number): string {
  if (amount === 0) return "$0";
  return `$${amount.toFixed(amount < 0.1 ? 4 : 2)}`;
}

export function duration(milliseconds: number): string {
  const seconds = Math.max(0, milliseconds) / 1_000;
  if (seconds < 1) return `${Math.max(1, Math.round(milliseconds))} ms`;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${Math.floor(seconds % 60)} s`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

export function bytes(size: number): string {
  if (size < 1_000) return `${size} B`;
  if (size < 1_000_000) return `${(size / 1_000).toFixed(size < 10_000 ? 1 : 0)} kB`;
  return `${(size / 1_000_000).toFixed(1)} MB`;
}

export function ago(then: number, now: number): string {
  const seconds = (now - then) / 1_000;
  if (seconds < 60) return "now";
  if (seconds < 3_600) return `${Math.floor(seconds / 60)} min`;
  const date = new Date(then);
  if (startOfDay(now) <= then) return date.toLocaleTimeString(undefined, { hour: "2-digit", minute: "2-digit" });
  if (seconds < 6 * 86_400) return date.toLocaleDateString(undefined, { weekday: "short" });
  return date.toLocaleDateString(undefined, { day: "numeric", month: "short" });
}

/** Under which heading of a list something of that time goes. */
export function day(then: number, now: number): string {
  const today = startOfDay(now);
  if (then >= today) return "Today";
  return then >= today - 86_400_000 ? "Yesterday" : "Earlier";
}

function startOfDay(time: number): number {
  return new Date(time).setHours(0, 0, 0, 0);
}
