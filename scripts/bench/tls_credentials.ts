/**
 * Certificates for QEMU's own TLS, made with openssl.
 *
 * @see https://www.qemu.org/docs/master/system/tls.html
 * @module
 */

import { runTool } from "../../cli/guest/run_tool.ts";

/** The name in the server's certificate, as `tls-hostname` wants it. */
export const TLS_HOSTNAME = "localhost";

/** GnuTLS would choose AES-256-GCM by itself; a changed default must not change the comparison. */
export const TLS_PRIORITY = "NORMAL:-CIPHER-ALL:+AES-256-GCM";

const roles = {
  server: ["serverAuth", `subjectAltName=DNS:${TLS_HOSTNAME}`],
  client: ["clientAuth", "subjectAltName=DNS:client"],
} as const;

/** Writes an authority and the certificates of both ends into `directory`, with the names that `tls-creds-x509` expects. */
export async function makeTlsCredentials(directory: string): Promise<void> {
  const openssl = (...args: string[]) => runTool("openssl", args, { cwd: directory });
  const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
  await openssl(
    ...["req", "-x509", ...key, "-keyout", "ca-key.pem", "-out", "ca-cert.pem", "-days", "2"],
    ...["-subj", "/CN=Sealift bench", "-addext", "basicConstraints=critical,CA:TRUE"],
    ...["-addext", "keyUsage=critical,keyCertSign"],
  );
  for (const [role, [usage, name]] of Object.entries(roles)) {
    await Deno.writeTextFile(
      `${directory}/${role}.cnf`,
      `basicConstraints=CA:FALSE\nkeyUsage=digitalSignature\nextendedKeyUsage=${usage}\n${name}\n`,
    );
    await openssl(
      ...["req", ...key, "-keyout", `${role}-key.pem`, "-out", `${role}.csr`],
      ...["-subj", `/CN=${role}`],
    );
    await openssl(
      ...["x509", "-req", "-in", `${role}.csr`, "-CA", "ca-cert.pem", "-CAkey", "ca-key.pem"],
      ...["-CAcreateserial", "-days", "2", "-extfile", `${role}.cnf`, "-out", `${role}-cert.pem`],
    );
  }
}
