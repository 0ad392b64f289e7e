// Values as text, and text as values.
const DTYPES = {
  DTYPE_FLOAT32: ["f32", 4], DTYPE_FLOAT64: ["f64", 8],
  DTYPE_FLOAT16: ["f16", 2], DTYPE_BFLOAT16: ["bf16", 2],
  DTYPE_INT64: ["i64", 8], DTYPE_INT32: ["i32", 4], DTYPE_INT16: ["i16", 2],
  DTYPE_INT8: ["i8", 1], DTYPE_UINT8: ["u8", 1], DTYPE_BOOL: ["bool", 1],
  DTYPE_COMPLEX64: ["c64", 8], DTYPE_COMPLEX128: ["c128", 16],
};

const shapeOf = (type) => ((type && type.shape) || []).map(Number);
const dtypeOf = (type) => DTYPES[type && type.dtype] || ["?", 0];

// {dtype: "DTYPE_FLOAT32", shape: ["8", "10"]} -> "f32[8, 10]"
function typeText(type) {
  return `${dtypeOf(type)[0]}[${shapeOf(type).join(", ")}]`;
}

const product = (numbers) => numbers.reduce((a, b) => a * b, 1);

// 1536 -> "1.50 KiB"
function bytesText(bytes) {
  let value = Number(bytes || 0);
  if (value < 1024) return `${value} B`;
  for (const unit of ["KiB", "MiB", "GiB", "TiB", "PiB"]) {
    value /= 1024;
    if (value < 1024 || unit === "PiB") {
      return `${value.toFixed(value < 10 ? 2 : value < 100 ? 1 : 0)} ${unit}`;
    }
  }
  return "";
}

function secondsText(seconds) {
  if (!isFinite(seconds)) return "?";
  if (seconds < 1e-3) return `${(seconds * 1e6).toFixed(0)} µs`;
  if (seconds < 1) return `${(seconds * 1e3).toFixed(seconds < .1 ? 2 : 0)} ms`;
  return `${seconds.toFixed(2)} s`;
}

function numberText(value) {
  if (!isFinite(value)) return String(value);
  const size = Math.abs(value);
  return size && (size < 1e-3 || size >= 1e6) ? value.toExponential(3)
                                              : String(+value.toPrecision(5));
}

const countText = (count) => Number(count || 0).toLocaleString("en");

function timeText(time) {
  if (!time) return "";
  const date = new Date(time);
  return isNaN(date) ? String(time) : date.toLocaleString("sv-SE");
}

// "STATE_READY" -> "READY"
const enumText = (value) =>
    String(value || "").replace(/^(STATE|KIND|SEVERITY|TYPE)_/, "");

const isWarning = (item) => enumText(item.severity) === "WARNING";

const lastToken = (name) => String(name).split("/").pop();

// {dims: [{name: "tp", size: 4}]} -> "[tp=4]"
function meshText(mesh) {
  const dims = (mesh && mesh.dims) || [];
  return `[${dims.map((dim) => `${dim.name}=${dim.size}`).join(", ")}]`;
}

// [0, 1, 2, 5] -> "0–2, 5"
function rangesText(numbers) {
  const parts = [];
  for (let i = 0; i < numbers.length;) {
    let j = i;
    while (j + 1 < numbers.length && numbers[j + 1] === numbers[j] + 1) ++j;
    parts.push(i === j ? `${numbers[i]}` : `${numbers[i]}–${numbers[j]}`);
    i = j + 1;
  }
  return parts.join(", ");
}

function halfFloat(bits) {
  const sign = bits >> 15 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return exponent ? sign * 2 ** (exponent - 15) * (1 + fraction / 1024)
                  : sign * 2 ** -24 * fraction;
}

// The value of a 0-dim tensor that came inline; undefined for others.
function scalarOf(tensor) {
  if (!tensor || !tensor.inline) return undefined;
  const bytes = Uint8Array.from(atob(tensor.inline), (c) => c.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  const read = {
    f32: () => view.getFloat32(0, true), f64: () => view.getFloat64(0, true),
    f16: () => halfFloat(view.getUint16(0, true)),
    bf16: () => {
      const wide = new DataView(new ArrayBuffer(4));
      wide.setUint16(2, view.getUint16(0, true), true);
      return wide.getFloat32(0, true);
    },
  }[dtypeOf(tensor.type)[0]];
  if (!read || view.byteLength < dtypeOf(tensor.type)[1]) return undefined;
  return read();
}
