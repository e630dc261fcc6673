import Foundation
import Glibc
import TestSupport

/// A certificate and its key, signed by itself, made by OpenSSL.
struct Certificate: Sendable {
    let name: String
    let certificateFile: String
    let keyFile: String
    /// As `openssl x509 -fingerprint -sha256` writes it.
    let fingerprint: String

    static func make(_ name: String, in folder: TemporaryFolder) throws -> Certificate {
        let (certificate, key) = ("\(folder.path)/\(name).crt", "\(folder.path)/\(name).key")
        _ = try OpenSSL.run([
            "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj",
            "/CN=\(name)", "-addext", "subjectAltName=DNS:\(name)", "-keyout", key, "-out", certificate,
        ])
        chmod(key, 0o644)
        let print = try OpenSSL.run(["x509", "-in", certificate, "-noout", "-fingerprint", "-sha256"])
        return Certificate(
            name: name, certificateFile: certificate, keyFile: key,
            fingerprint: print.trimmingCharacters(in: .whitespacesAndNewlines))
    }
}

enum OpenSSL {
    @discardableResult static func run(_ arguments: [String], input: String = "") throws -> String {
        let child = try Child("openssl", arguments)
        if !input.isEmpty { try child.write(input) }
        child.closeInput()
        guard try child.waitForExit() == .code(0) else { throw Failure("openssl \(arguments):\n\(child.output)") }
        return child.output
    }

    /// What a TLS client of its own implementation sees of a server.
    struct Seen: Sendable {
        let output: String
        let version: String?
        /// The certificate's, nil if there was none.
        let fingerprint: String?
    }

    /// A handshake, `request` sent, and the answer read until the server closes.
    /// - Parameter name: the SNI; nil: none is sent.
    static func connect(
        to place: Place, name: String?, version: String, request: String = "GET / HTTP/1.0\r\n\r\n"
    ) throws -> Seen {
        var arguments = ["s_client", "-connect", place.description, "-\(version)", "-ign_eof", "-showcerts"]
        arguments += name.map { ["-servername", $0] } ?? ["-noservername"]
        let child = try Child("openssl", arguments)
        try? child.write(request)
        try child.waitForExit()
        let output = child.output
        var fingerprint: String?
        if let start = output.range(of: "-----BEGIN CERTIFICATE-----"),
            let end = output.range(of: "-----END CERTIFICATE-----")
        {
            let pem = String(output[start.lowerBound..<end.upperBound]) + "\n"
            fingerprint = try run(["x509", "-noout", "-fingerprint", "-sha256"], input: pem)
                .trimmingCharacters(in: .whitespacesAndNewlines)
        }
        let protocolLine = child.lines.map(\.text).first { $0.hasPrefix("New, TLSv1") }
        let version = protocolLine?.split(separator: ",").dropFirst().first.map {
            $0.trimmingCharacters(in: .whitespaces)
        }
        return Seen(output: output, version: version, fingerprint: fingerprint)
    }
}

/// Waits until something listens at `place`, by trying: what others start has no line that says so.
func waitForListener(at place: Place, _ child: Child, _ deadline: Deadline = Deadline()) throws {
    try awaitUntil("\(child.name) listens at \(place):\n\(child.output)", deadline) {
        guard !child.hasEnded else { throw Failure("\(child.name) ended:\n\(child.output)") }
        return (try? Socket.connect(to: place, deadline)) != nil
    }
}

/// An nginx with a configuration of the test's own, in the foreground.
struct Nginx: Sendable {
    let child: Child
    private let folder: TemporaryFolder
    private let log: String

    /// - Parameter http: what stands in the `http` block; `access_log` writes the format `seen`.
    /// - Parameter namespace: the network namespace to run it in; nil: the test's own.
    init(seen: String, http: String, in namespace: String? = nil, ready place: Place) throws {
        let folder = try TemporaryFolder()
        self.folder = folder
        log = "\(folder.path)/seen.log"
        let user = getuid() == 0 ? "user root;" : ""
        let config = try folder.write(
            "nginx.conf",
            """
            \(user) daemon off; master_process off; pid \(folder.path)/pid; error_log stderr warn;
            events { worker_connections 256; }
            http {
                log_format seen '\(seen)';
                access_log \(log) seen;
                client_body_temp_path \(folder.path)/b; proxy_temp_path \(folder.path)/p;
                fastcgi_temp_path \(folder.path)/f; uwsgi_temp_path \(folder.path)/u; scgi_temp_path \(folder.path)/s;
            \(http)
            }
            """)
        let arguments = ["-p", folder.path, "-c", config, "-e", "stderr"]
        child =
            if let namespace {
                try Child("ip", ["netns", "exec", namespace, "nginx"] + arguments)
            } else {
                try Child("nginx", arguments)
            }
        try waitForListener(at: place, child)
    }

    /// - Parameter stream: what stands in the `stream` block; a `limit_conn_zone` by client address, `clients`, is there.
    init(stream: String, ready place: Place) throws {
        let folder = try TemporaryFolder()
        self.folder = folder
        log = "\(folder.path)/seen.log"
        let user = getuid() == 0 ? "user root;" : ""
        let modules: [String] = ["/usr/lib/nginx/modules/ngx_stream_module.so"].filter { access($0, R_OK) == 0 }
        let config = try folder.write(
            "nginx.conf",
            """
            \(modules.map { "load_module \($0);" }.joined())
            \(user) daemon off; master_process off; pid \(folder.path)/pid; error_log stderr warn;
            events { worker_connections 256; }
            stream {
                limit_conn_zone $binary_remote_addr zone=clients:64k;
            \(stream)
            }
            """)
        child = try Child("nginx", ["-p", folder.path, "-c", config, "-e", "stderr"])
        try waitForListener(at: place, child)
    }

    /// The access log so far.
    var seen: String { (try? String(contentsOfFile: log, encoding: .utf8)) ?? "" }
}

/// An HAProxy with a configuration of the test's own, in the foreground.
struct HAProxy: Sendable {
    let child: Child
    private let folder: TemporaryFolder

    /// - Parameter namespace: the network namespace to run it in; nil: the test's own.
    init(_ config: String, in namespace: String? = nil, ready place: Place) throws {
        let folder = try TemporaryFolder()
        self.folder = folder
        // It wants the last line whole.
        let file = try folder.write("haproxy.cfg", config + "\n")
        let words = (namespace.map { ["ip", "netns", "exec", $0] } ?? []) + ["haproxy", "-db", "-f", file]
        child = try Child(words[0], Array(words.dropFirst()))
        try waitForListener(at: place, child)
    }
}
