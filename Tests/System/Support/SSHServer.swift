import Foundation
import Glibc
import TestSupport

/// OpenSSH's server, which takes one key.
struct SSHServer: Sendable {
    let place: Place
    let child: Child
    private let folder: TemporaryFolder
    private var key: String { "\(folder.path)/key" }

    /// It separates privileges only as root, and wants to be called by its path.
    static var isInstalled: Bool { Child.find("sshd") != nil && Child.find("ssh") != nil && getuid() == 0 }

    init() throws {
        let folder = try TemporaryFolder()
        self.folder = folder
        mkdir("/run/sshd", 0o755)
        for name in ["host", "key"] {
            let made = try Child("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-f", "\(folder.path)/\(name)"])
            guard try made.waitForExit() == .code(0) else { throw Failure("ssh-keygen:\n\(made.output)") }
        }
        place = Place("127.0.0.1", try FreePort.take())
        let config = try folder.write(
            "sshd_config",
            """
            ListenAddress \(place.host):\(place.port)
            HostKey \(folder.path)/host
            AuthorizedKeysFile \(folder.path)/key.pub
            StrictModes no
            UsePAM no
            PidFile none
            PermitRootLogin prohibit-password

            """)
        let path = try Child.find("sshd").unwrap("sshd")
        child = try Child(path, ["-D", "-e", "-f", config])
        try waitForListener(at: place, child)
    }

    /// What a command of OpenSSH's client prints, run by way of `entry`.
    func run(_ command: String, at entry: Place) throws -> String {
        let child = try Child(
            "ssh",
            [
                "-F", "none", "-i", key, "-p", "\(entry.port)", "-o", "StrictHostKeyChecking=no", "-o",
                "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-o", "BatchMode=yes", "-o",
                "ConnectTimeout=20", "root@\(entry.host)", command,
            ])
        child.closeInput()
        try child.waitForExit(Deadline(seconds: 60))
        return child.output.trimmingCharacters(in: .whitespacesAndNewlines)
    }
}
