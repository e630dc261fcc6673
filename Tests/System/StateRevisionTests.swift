import Foundation
import Glibc
import Testing

@Suite("R22, R24: a running node and the revisions of its state file")
struct StateRevisionTests {
    @Test("a lower one, no number and three empty lists change nothing; a reused one is told; a bad object is left out")
    func node() throws {
        let server = try Server.saying("x")
        let folder = try TemporaryFolder()
        let admin = "\(folder.path)/admin.sock"
        let entry = Place("::1", try FreePort.take())
        let route = { (id: String, more: String) in
            """
            {"route_id":"\(id)","env_id":"e","listen_port":\(entry.port),"protocol_hint":"tcp_raw",
             "backend_process_type":"w","backend_port":\(server.place.port)\(more)}
            """
        }
        let state = { (revision: String, envs: String, routes: [String]) in
            let instance =
                "{\"instance_id\":\"i\",\"env_id\":\"e\",\"process_type\":\"w\",\"overlay_ipv6\":\"::1\",\"status\":\"ready\"}"
            _ = try folder.write(
                "state.json",
                """
                {"format":"pipelined.state/1","revision":\(revision),"envs":[\(envs)],
                 "instances":[\(envs.isEmpty ? "" : instance)],"routes":[\(routes.joined(separator: ","))]}
                """)
        }
        let env = "{\"env_id\":\"e\",\"app_id\":\"a\",\"org_id\":\"o\"}"
        try state("42", env, [route("rt", "")])
        var config = ConfigText(settings: ["admin unix:\(admin)"], rawListeners: [entry])
        config.more = "routes file state.json\n"
        let node = try Node(config.description, folder: folder)
        let isServed = { try Socket.connect(to: entry).receiveToEnd().bytes == Array("x".utf8) }
        #expect(try isServed())
        func reload(_ more: [String] = []) throws -> (exit: Child.Exit, out: String) {
            let answer = try Binary.run(["reload", "--admin", admin] + more)
            return (answer.exit, answer.out + answer.error)
        }
        for (revision, why) in [("41", "42 is applied"), ("-1", "is negative"), ("\"x\"", "is a string")] {
            try state(revision, env, [])
            let answer = try reload()
            #expect(answer.exit == .code(1) && answer.out.contains(why), "\(answer)")
            #expect(try isServed())
        }
        try state("43", "", [])
        #expect(try reload().exit == .code(1))
        #expect(try isServed())
        // A bad object keeps what it was; the revision is another document's.
        try state("42", env, [route("rt", ",\"listen_port\":1")])
        let reused = try reload()
        #expect(reused.exit == .code(0) && reused.out.contains("revision_reused"), "\(reused)")
        #expect(reused.out.contains("occurs twice"), "\(reused)")
        #expect(try isServed())
        try state("43", "", [])
        let meant = try reload(["--confirm"])
        #expect(meant.exit == .code(0), "\(meant)")
        #expect(try Admin.json(["status"], admin)["routes"] as? Int == 0)
        #expect(!node.child.hasEnded)
    }
}
