/*
 * A key of EC P-256, and its self-signed certificate for localhost, 127.0.0.1 and ::1, valid until 2126. They are for
 * tests only: everybody knows the key. Made by
 *
 *   openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 36500 -subj /CN=localhost \
 *     -addext "subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1" -keyout key.pem -out cert.pem
 */

export const KEY = `-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgeNVFCy0zMcmmfsSG
d8kYc9IaNJfPDpc7OhD+CMzxD5+hRANCAARV1wuMmdAARhuELDKCqLaTlx9maf5h
kgIszCR1YjFp/46NJR0E18ONnBiJT0TliZq59vRqrsReE9d5qrUyyiX0
-----END PRIVATE KEY-----
`;

export const CERTIFICATE = `-----BEGIN CERTIFICATE-----
MIIBrjCCAVSgAwIBAgIUNqCiHD7ON5ldR1o3qXYTyDO39ygwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyMTIzMjQzN1oYDzIxMjYxMDI4
MjMyNDM3WjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAARV1wuMmdAARhuELDKCqLaTlx9maf5hkgIszCR1YjFp/46NJR0E18ON
nBiJT0TliZq59vRqrsReE9d5qrUyyiX0o4GBMH8wHQYDVR0OBBYEFPXPCoY+753J
rItNd4tae3jUTdIJMB8GA1UdIwQYMBaAFPXPCoY+753JrItNd4tae3jUTdIJMA8G
A1UdEwEB/wQFMAMBAf8wLAYDVR0RBCUwI4IJbG9jYWxob3N0hwR/AAABhxAAAAAA
AAAAAAAAAAAAAAABMAoGCCqGSM49BAMCA0gAMEUCIQDe1gwzAbe4ZlNIG0588t30
KJPXlFSTFH9EV14yOmU/IQIgUnX3h5qAiHyLQjww9dJyCEzz0l9LEA8x29aueN+G
CDs=
-----END CERTIFICATE-----
`;
