import Foundation
import Glibc
import TestSupport

/// Dovecot with IMAP and SMTP submission, both with STARTTLS alone; everybody's password is `secret`.
struct DovecotServer: Sendable {
    let imap: Place
    let smtp: Place
    let child: Child
    private let folder: TemporaryFolder

    /// It changes users only as root.
    static var isInstalled: Bool {
        Child.find("dovecot") != nil && access("/usr/lib/dovecot/submission-login", X_OK) == 0 && getuid() == 0
    }

    init(certificate name: String) throws {
        let folder = try TemporaryFolder()
        self.folder = folder
        chmod(folder.path, 0o711)
        let certificate = try Certificate.make(name, in: folder)
        imap = Place("127.0.0.1", try FreePort.take())
        smtp = Place("127.0.0.1", try FreePort.take())
        let mail = "\(folder.path)/mail"
        mkdir(mail, 0o755)
        chown(mail, DovecotServer.nobody, DovecotServer.nobody)
        let config = try folder.write(
            "dovecot.conf",
            """
            base_dir = \(folder.path)/run
            state_dir = \(folder.path)/state
            log_path = /dev/stderr
            protocols = imap submission
            listen = 127.0.0.1
            ssl = required
            ssl_cert = <\(certificate.certificateFile)
            ssl_key = <\(certificate.keyFile)
            passdb {
              driver = static
              args = password=secret
            }
            userdb {
              driver = static
              args = uid=\(DovecotServer.nobody) gid=\(DovecotServer.nobody) home=\(mail)
            }
            mail_location = maildir:\(mail)/box
            submission_relay_host = 127.0.0.1
            \(DovecotServer.service("imap", imap.port))
            \(DovecotServer.service("submission", smtp.port))

            """)
        child = try Child("dovecot", ["-F", "-c", config])
        try waitForListener(at: imap, child)
        try waitForListener(at: smtp, child)
    }

    private static let nobody: UInt32 = 65534

    /// Its port, and no other that has TLS from the first byte.
    private static func service(_ name: String, _ port: UInt16) -> String {
        """
        service \(name)-login {
          inet_listener \(name) {
            port = \(port)
          }
          inet_listener \(name)s {
            port = 0
          }
        }
        """
    }
}

/// OpenLDAP's server with an empty directory.
struct LDAPServer: Sendable {
    let place: Place
    let child: Child
    private let folder: TemporaryFolder

    static var isInstalled: Bool { ["slapd", "ldapsearch"].allSatisfy { Child.find($0) != nil } }

    /// - Parameter suffix: what it says that it holds.
    init(certificate name: String, suffix: String) throws {
        let folder = try TemporaryFolder()
        self.folder = folder
        let certificate = try Certificate.make(name, in: folder)
        place = Place("127.0.0.1", try FreePort.take())
        mkdir("\(folder.path)/ldap", 0o700)
        let config = try folder.write(
            "slapd.conf",
            """
            include /etc/ldap/schema/core.schema
            pidfile \(folder.path)/pid
            TLSCertificateFile \(certificate.certificateFile)
            TLSCertificateKeyFile \(certificate.keyFile)
            TLSCACertificateFile \(certificate.certificateFile)
            database ldif
            suffix "\(suffix)"
            directory \(folder.path)/ldap

            """)
        child = try Child("slapd", ["-h", "ldap://\(place)", "-f", config, "-d", "0"])
        try waitForListener(at: place, child)
    }

    /// What the server behind `localhost` holds, as ldapsearch finds it over STARTTLS, or what went wrong.
    static func search(at entry: Place) throws -> String {
        let child = try Child(
            "env",
            [
                "LDAPTLS_REQCERT=never", "ldapsearch", "-H", "ldap://localhost:\(entry.port)", "-ZZ", "-x", "-LLL",
                "-b",
                "", "-s", "base", "namingContexts",
            ])
        child.closeInput()
        try child.waitForExit()
        return child.output
    }
}
