import Foundation
import Glibc
import TestSupport

/// A real PostgreSQL with a database of its own, which anybody may log in to.
struct PostgreSQLServer: Sendable {
    let place: Place
    let child: Child
    private let folder: TemporaryFolder

    static var isInstalled: Bool {
        ["initdb", "postgres", "psql", "setpriv"].allSatisfy { Child.find($0) != nil } && getpwnam("postgres") != nil
    }

    /// - Parameter certificate: for TLS; nil: it has none.
    init(certificate name: String? = nil, settings: [String] = []) throws {
        let folder = try TemporaryFolder()
        self.folder = folder
        chmod(folder.path, 0o711)
        let user = try getpwnam("postgres").unwrap("a user named postgres").pointee
        let data = "\(folder.path)/data"
        try FileManager.default.createDirectory(atPath: data, withIntermediateDirectories: false)
        chown(data, user.pw_uid, user.pw_gid)
        let asUser = getuid() == 0 ? ["setpriv", "--reuid", "postgres", "--regid", "postgres", "--clear-groups"] : []
        func start(_ words: [String]) throws -> Child {
            let all = asUser + words
            return try Child(all[0], Array(all.dropFirst()))
        }
        let made = try start(["initdb", "-D", data, "-A", "trust", "--no-sync"])
        guard try made.waitForExit(Deadline(seconds: 60)) == .code(0) else { throw Failure("initdb:\n\(made.output)") }
        var settings = settings
        if let name {
            let certificate = try Certificate.make(name, in: folder)
            chmod(certificate.keyFile, 0o600)
            chown(certificate.keyFile, user.pw_uid, user.pw_gid)
            settings += [
                "ssl=on", "ssl_cert_file=\(certificate.certificateFile)", "ssl_key_file=\(certificate.keyFile)",
            ]
        }
        place = Place("127.0.0.1", try FreePort.take())
        settings += ["listen_addresses=127.0.0.1", "port=\(place.port)", "fsync=off", "unix_socket_directories="]
        child = try start(["postgres", "-D", data] + settings.flatMap { ["-c", $0] })
        try waitForListener(at: place, child, Deadline(seconds: 60))
    }

    /// What psql prints for a query, without decoration; what went wrong in place of it.
    static func query(
        _ query: String, host: String = "127.0.0.1", at entry: Place, sslmode: String, _ more: String = ""
    ) throws -> String {
        let child = try Child(
            "psql",
            [
                "host=\(host) hostaddr=\(entry.host) port=\(entry.port) user=postgres dbname=postgres "
                    + "sslmode=\(sslmode) connect_timeout=20 \(more)", "-XAtc", query,
            ])
        try child.waitForExit(Deadline(seconds: 60))
        return child.output.trimmingCharacters(in: .whitespacesAndNewlines)
    }
}
