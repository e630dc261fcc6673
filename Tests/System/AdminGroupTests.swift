import Foundation
import Glibc
import TestSupport
import Testing

/// Who may do what on the admin socket: real users, by number.
@Suite("The group of the admin socket", .enabled(if: getuid() == 0 && Child.find("setpriv") != nil, "needs root"))
struct AdminGroupTests {
    private static let member: UInt32 = 61001
    private static let stranger: UInt32 = 61003
    private static let owner: UInt32 = 61002
    private static let group: UInt32 = 61234

    /// A command as somebody else.
    private static func words(_ user: UInt32, in group: UInt32?, _ words: [String]) -> [String] {
        ["setpriv", "--reuid", "\(user)", "--regid", "\(user)"]
            + (group.map { ["--groups", "\($0)"] } ?? ["--clear-groups"]) + words
    }

    private static func run(
        _ user: UInt32, in group: UInt32?, _ command: [String]
    ) throws -> (exit: Child.Exit, out: String, error: String) {
        let all = words(user, in: group, command)
        let child = try Child(all[0], Array(all.dropFirst()))
        child.closeInput()
        let exit = try child.waitForExit()
        let text = { (stream: Child.Line.Stream) in
            child.lines.filter { $0.stream == stream }.map(\.text).joined(separator: "\n")
        }
        return (exit, text(.out), text(.error))
    }

    private struct Site {
        let folder: TemporaryFolder
        let entry: Place
        let config: String
        var admin: String { folder.path + "/admin.sock" }
        var data: String { folder.path + "/data" }

        init(group: String) throws {
            folder = try TemporaryFolder()
            entry = Place("::1", try FreePort.take())
            config =
                ConfigText(
                    settings: ["admin unix:\(folder.path)/admin.sock group \(group)", "state \(folder.path)/data"],
                    rawListeners: [entry],
                    routes: [
                        RouteText(
                            host: nil, id: "rt_raw", port: entry.port, backends: [Place("::1", try FreePort.take())])
                    ]
                ).description
        }

        func rejected() throws -> [[String: Any]] {
            try Binary.run(["audit", data, "--json", "--outcome", "rejected"]).out.split(separator: "\n").compactMap {
                try JSONSerialization.jsonObject(with: Data($0.utf8)) as? [String: Any]
            }
        }
    }

    @Test("members of the group read, and change nothing; others don't get in; each try is in the journal (R25)")
    func members() throws {
        let site = try Site(group: "\(Self.group)")
        let node = try Node(site.config, folder: site.folder)
        var status = stat()
        #expect(stat(site.admin, &status) == 0)
        #expect(status.st_mode & 0o777 == 0o660 && status.st_uid == 0 && status.st_gid == Self.group)
        let ask = { (words: [String]) in
            try Self.run(Self.member, in: Self.group, [Binary.path] + words + ["--admin", site.admin])
        }
        for words in [["status"], ["routes"], ["backends", "--json"]] {
            let answer = try ask(words)
            #expect(answer.exit == .code(0), "\(words): \(answer)")
        }
        let explained = try ask(["explain", "--to", site.entry.description, "--from", "[2001:db8::1]:9"])
        #expect(explained.out.contains("rt_raw"), "\(explained)")
        let generation = try Admin.json(["status"], site.admin)["generation"] as? Int
        for words in [["reload"], ["reload", "--confirm"], ["reload", "--json"]] {
            let answer = try ask(words)
            #expect(answer.exit == .code(1), "\(answer)")
            let said = answer.out + answer.error
            #expect(said.contains("uid \(Self.member) may read here, but not reload: that is for root"), "\(said)")
        }
        let script = #"""
            my $socket = IO::Socket::UNIX->new(Peer => $ARGV[0]) or die $!;
            print $socket "{\"command\":\"hand_over\"}\n"; print <$socket>;
            """#
        let handed = try Self.run(
            Self.member, in: Self.group, ["perl", "-MIO::Socket::UNIX", "-e", script, site.admin])
        #expect(handed.out.contains("may read here, but not hand_over"), "\(handed)")
        #expect(try Admin.json(["status"], site.admin)["generation"] as? Int == generation)
        let stranger = try Self.run(Self.stranger, in: nil, [Binary.path, "status", "--admin", site.admin])
        #expect(stranger.exit == .code(3) && stranger.error.contains("no permission"), "\(stranger)")
        #expect(try Binary.run(["reload", "--admin", site.admin]).exit == .code(0))
        try awaitUntil("four refused acts") { try site.rejected().count == 4 }
        let refused = try site.rejected()
        #expect(refused.allSatisfy { $0["uid"] as? Int == Int(Self.member) && $0["source"] as? String == "admin" })
        #expect(refused.compactMap { $0["command"] as? String } == ["pipelined", "pipelined", "pipelined", "perl"])
        #expect(refused.compactMap { $0["what"] as? String } == ["reload", "reload", "reload", "hand_over"])
        node.child.signal(SIGTERM)
        try node.child.waitForExit()
    }

    @Test("a node of another user: that user and root change it, a member does not, by the kernel's word")
    func owner() throws {
        let site = try Site(group: "\(Self.group)")
        let config = try site.folder.write("node.pipeline", site.config)
        #expect(chown(site.folder.path, Self.owner, Self.owner) == 0)
        let words = Self.words(Self.owner, in: Self.group, [Binary.path, "run", config])
        let node = try Child(words[0], Array(words.dropFirst()))
        _ = try node.wait("that it is ready") { lines in lines.first { $0.isEvent("ready") } }
        let reload = [Binary.path, "reload", "--admin", site.admin]
        #expect(try Self.run(Self.owner, in: nil, reload).exit == .code(0))
        #expect(try Binary.run(Array(reload.dropFirst())).exit == .code(0))
        let refused = try Self.run(Self.member, in: Self.group, reload)
        #expect(refused.exit == .code(1))
        let who = "that is for root and uid \(Self.owner), which the node runs as"
        #expect((refused.out + refused.error).contains(who), "\(refused)")
        node.signal(SIGTERM)
        #expect(try node.waitForExit() == .code(0))
        #expect(try Binary.run(["audit", site.data, "--verify"]).exit == .code(0))
    }

    @Test(
        "a group that the node's user is not in refuses the start, and leaves no socket; one that is not there is an error"
    )
    func refused() throws {
        let site = try Site(group: "\(Self.group)")
        let config = try site.folder.write("node.pipeline", site.config)
        #expect(chown(site.folder.path, Self.owner, Self.owner) == 0)
        let start = try Self.run(Self.owner, in: nil, [Binary.path, "run", config])
        #expect(start.exit == .code(1), "\(start)")
        #expect(start.error.contains("this user is no member of the group"), "\(start.error)")
        #expect(access(site.admin, F_OK) != 0)
        let unknown = try Site(group: "dameon")
        let check = try Binary.run(["check", try unknown.folder.write("node.pipeline", unknown.config)])
        #expect(check.exit == .code(1))
        #expect(check.error.contains("this host has no group `dameon`"), "\(check.error)")
        #expect(check.error.contains("did you mean `daemon`?"), "\(check.error)")
        let known = try Site(group: "daemon")
        #expect(try Binary.run(["check", try known.folder.write("node.pipeline", known.config)]).exit == .code(0))
    }
}
