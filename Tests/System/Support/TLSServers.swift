import Foundation
import Glibc
import TestSupport
import Testing

/// A TLS server of someone else's making, as operators run it: what `probe tls` must find up.
struct TLSServer: Sendable, CustomTestStringConvertible {
    let name: String
    /// What it takes to run it.
    let programs: [String]
    /// Starts it at `place`; files of its own go into the folder, where `certificate` is too.
    let start: @Sendable (Place, Certificate, TemporaryFolder) throws -> Child

    var testDescription: String { name }
    var isInstalled: Bool { programs.allSatisfy { Child.find($0) != nil } }

    /// Those that `make deps` installs.
    static let usual = [
        nginx("nginx", "TLSv1.2 TLSv1.3"), nginx("nginx, 1.2 alone", "TLSv1.2"), nginx("nginx, 1.3 alone", "TLSv1.3"),
        haproxy, openssl("OpenSSL, 1.2 alone", ["-tls1_2"]), openssl("OpenSSL, 1.3 alone", ["-tls1_3"]),
        openssl("OpenSSL, P-384 alone", ["-tls1_3", "-groups", "P-384"]),
        openssl("OpenSSL, 1.2 and CBC alone", ["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA"]), python,
    ]
    /// Those that are tested where they are: Debian's nodejs, default-jdk-headless, golang-go, hitch, apache2.
    static let others = [node, java, go, hitch, apache]

    private static func nginx(_ name: String, _ versions: String) -> TLSServer {
        TLSServer(name: name, programs: ["nginx"]) { place, certificate, folder in
            let path = folder.path
            let config = try folder.write(
                "nginx.conf",
                """
                \(getuid() == 0 ? "user root;" : "") daemon off; master_process off; pid \(path)/pid; error_log stderr warn;
                events { worker_connections 256; }
                http {
                    access_log off;
                    client_body_temp_path \(path)/b; proxy_temp_path \(path)/p; fastcgi_temp_path \(path)/f;
                    uwsgi_temp_path \(path)/u; scgi_temp_path \(path)/s;
                    server {
                        listen \(place) ssl; ssl_protocols \(versions);
                        ssl_certificate \(certificate.certificateFile); ssl_certificate_key \(certificate.keyFile);
                    }
                }
                """)
            return try Child("nginx", ["-p", path, "-c", config, "-e", "stderr"])
        }
    }

    private static let haproxy = TLSServer(name: "HAProxy", programs: ["haproxy"]) { place, certificate, folder in
        let both = try folder.joined(certificate)
        let config = try folder.write(
            "haproxy.cfg",
            """
            defaults
                mode http
                timeout connect 5s
                timeout client 5s
                timeout server 5s
            frontend tls
                bind \(place) ssl crt \(both)
                http-request return status 200

            """)
        return try Child("haproxy", ["-db", "-f", config])
    }

    private static func openssl(_ name: String, _ options: [String]) -> TLSServer {
        TLSServer(name: name, programs: ["openssl"]) { place, certificate, _ in
            try Child(
                "openssl",
                ["s_server", "-accept", place.description, "-www", "-quiet", "-cert", certificate.certificateFile]
                    + ["-key", certificate.keyFile] + options)
        }
    }

    private static let python = TLSServer(name: "Python", programs: ["python3"]) { place, certificate, folder in
        let script = try folder.write(
            "server.py",
            """
            import socket, ssl, threading
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain("\(certificate.certificateFile)", "\(certificate.keyFile)")
            listener = socket.create_server(("\(place.host)", \(place.port)), family=socket.AF_INET6)
            def serve(plain):
                try:
                    context.wrap_socket(plain, server_side=True).close()
                except OSError:
                    pass
            while True:
                threading.Thread(target=serve, args=[listener.accept()[0]], daemon=True).start()
            """)
        return try Child("python3", [script])
    }

    private static let node = TLSServer(name: "Node", programs: ["node"]) { place, certificate, folder in
        let script = try folder.write(
            "server.js",
            """
            const fs = require("fs")
            const options = {
                cert: fs.readFileSync("\(certificate.certificateFile)"), key: fs.readFileSync("\(certificate.keyFile)")
            }
            const server = require("tls").createServer(options, socket => socket.end())
            server.on("tlsClientError", () => {})
            server.listen(\(place.port), "\(place.host)")
            """)
        return try Child("node", [script])
    }

    private static let java = TLSServer(name: "Java", programs: ["java", "javac"]) { place, certificate, folder in
        let store = "\(folder.path)/store.p12"
        try OpenSSL.run([
            "pkcs12", "-export", "-in", certificate.certificateFile, "-inkey", certificate.keyFile, "-out", store,
            "-passout", "pass:secret",
        ])
        let source = try folder.write(
            "Server.java",
            """
            import java.io.FileInputStream;
            import java.net.InetAddress;
            import java.security.KeyStore;
            import javax.net.ssl.*;
            class Server {
                public static void main(String[] words) throws Exception {
                    KeyStore store = KeyStore.getInstance("PKCS12");
                    store.load(new FileInputStream("\(store)"), "secret".toCharArray());
                    KeyManagerFactory keys = KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
                    keys.init(store, "secret".toCharArray());
                    SSLContext context = SSLContext.getInstance("TLS");
                    context.init(keys.getKeyManagers(), null, null);
                    SSLServerSocket listener = (SSLServerSocket) context.getServerSocketFactory()
                        .createServerSocket(\(place.port), 100, InetAddress.getByName("\(place.host)"));
                    while (true) {
                        SSLSocket socket = (SSLSocket) listener.accept();
                        new Thread(() -> {
                            try { socket.startHandshake(); socket.close(); } catch (Exception e) {}
                        }).start();
                    }
                }
            }
            """)
        return try Child("java", [source])
    }

    private static let go = TLSServer(name: "Go", programs: ["go"]) { place, certificate, folder in
        let source = try folder.write(
            "server.go",
            """
            package main
            import "crypto/tls"
            func main() {
                pair, err := tls.LoadX509KeyPair("\(certificate.certificateFile)", "\(certificate.keyFile)")
                if err != nil { panic(err) }
                config := &tls.Config{Certificates: []tls.Certificate{pair}}
                listener, err := tls.Listen("tcp", "\(place)", config)
                if err != nil { panic(err) }
                for {
                    accepted, err := listener.Accept()
                    if err != nil { panic(err) }
                    go func() { accepted.(*tls.Conn).Handshake(); accepted.Close() }()
                }
            }
            """)
        let program = "\(folder.path)/server"
        let environment = ["GOCACHE": "\(folder.path)/cache", "GO111MODULE": "off", "CGO_ENABLED": "0"]
        let build = try Child("go", ["build", "-o", program, source], environment: environment)
        guard try build.waitForExit(Deadline(seconds: 300)) == .code(0) else { throw Failure(build.output) }
        return try Child(program, [])
    }

    private static let hitch = TLSServer(name: "hitch", programs: ["hitch"]) { place, certificate, folder in
        let both = try folder.joined(certificate)
        // What it would relay to is never asked: a probe ends before.
        let words = ["--frontend=\(place)", "--backend=[127.0.0.1]:9", both]
        return try Child("hitch", (getuid() == 0 ? ["--user=nobody"] : []) + words)
    }

    private static let apache = TLSServer(name: "Apache", programs: ["apache2"]) { place, certificate, folder in
        let modules = "/usr/lib/apache2/modules"
        let config = try folder.write(
            "apache.conf",
            """
            ServerName localhost
            LoadModule mpm_event_module \(modules)/mod_mpm_event.so
            LoadModule authz_core_module \(modules)/mod_authz_core.so
            LoadModule ssl_module \(modules)/mod_ssl.so
            PidFile \(folder.path)/pid
            ErrorLog /dev/stderr
            DefaultRuntimeDir \(folder.path)
            Mutex file:\(folder.path)
            SSLSessionCache none
            Listen \(place) https
            <VirtualHost *:\(place.port)>
                SSLEngine on
                SSLCertificateFile \(certificate.certificateFile)
                SSLCertificateKeyFile \(certificate.keyFile)
            </VirtualHost>

            """)
        return try Child("apache2", ["-X", "-f", config])
    }
}

extension TemporaryFolder {
    /// One file with the certificate and its key.
    fileprivate func joined(_ certificate: Certificate) throws -> String {
        let text = try [certificate.keyFile, certificate.certificateFile].map {
            try String(contentsOfFile: $0, encoding: .utf8)
        }
        return try write("both.pem", text.joined())
    }
}
