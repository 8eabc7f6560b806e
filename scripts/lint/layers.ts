/**
 * A plugin of `deno lint` that keeps the layers apart: `migration/` is handed everything that touches the
 * world, `kvm/` fits its ports by shape, `ciphers/` knows neither; only `cli/`, `mod.ts` and tests put them
 * together.
 *
 * @module
 * @see https://docs.deno.com/runtime/reference/lint_plugins/
 */

interface Layer {
  /** Other layers that it may import. */
  imports: readonly string[];
  /** `node:` modules that it may import; all when absent. */
  node?: readonly string[];
  /** Whether it may use `Deno`. */
  deno: boolean;
}

/** The layers, and what each may lean on. Folders that are not here may import everything. */
const layers = {
  migration: { imports: ["ciphers"], node: [], deno: false },
  kvm: { imports: [], deno: true },
  ciphers: { imports: [], deno: true },
} as const satisfies Record<string, Layer>;

/** The repository's root as a path that ends in a slash. */
const root = decodeURIComponent(new URL("../../", import.meta.url).pathname);

/** A path from the repository's root, whichever way the linter spells it. */
function fromRoot(fileName: string): string {
  const path = fileName.startsWith("file://") ? new URL(fileName).pathname : fileName;
  return path.startsWith(root) ? path.slice(root.length) : path.replace(/^\.?\//, "");
}

function layerOf(path: string): Layer | undefined {
  const [folder = ""] = path.split("/");
  return Object.hasOwn(layers, folder) ? layers[folder as keyof typeof layers] : undefined;
}

/** What is wrong with an import, or null. */
function importFault(path: string, specifier: string): string | null {
  const layer = layerOf(path);
  if (layer === undefined) return null;
  const [folder = ""] = path.split("/");
  if (specifier.startsWith("node:")) {
    return layer.node === undefined || layer.node.includes(specifier)
      ? null
      : `${folder}/ does no I/O of its own: ${specifier}`;
  }
  if (!specifier.startsWith("./") && !specifier.startsWith("../")) {
    return `${folder}/ has no dependencies: ${specifier}`;
  }
  const target = new URL(specifier, `file:///${path}`).pathname.slice(1);
  const [targetFolder = ""] = target.split("/");
  return targetFolder === folder || layer.imports.includes(targetFolder)
    ? null
    : `${folder}/ imports nothing of ${target}`;
}

/** The rule `sealift-layers`. */
export const layersPlugin: Deno.lint.Plugin = {
  name: "sealift",
  rules: {
    "sealift-layers": {
      create(context) {
        const path = fromRoot(context.filename);
        const layer = layerOf(path);
        if (layer === undefined) return {};
        const check = (node: Deno.lint.Node, source: Deno.lint.Node | null | undefined) => {
          if (source?.type !== "Literal" || typeof source.value !== "string") return;
          const fault = importFault(path, source.value);
          if (fault !== null) context.report({ node, message: `Cannot import: ${fault}` });
        };
        return {
          ImportDeclaration: (node) => check(node, node.source),
          ExportAllDeclaration: (node) => check(node, node.source),
          ExportNamedDeclaration: (node) => check(node, node.source),
          ImportExpression: (node) => check(node, node.source),
          TSImportType: (node) =>
            check(node, node.argument.type === "TSLiteralType" ? node.argument.literal : null),
          Identifier(node) {
            if (node.name !== "Deno" || layer.deno) return;
            context.report({ node, message: "Cannot use Deno here: ask for it through a port" });
          },
        };
      },
    },
  },
};

export default layersPlugin;
