import Foundation
import TestSupport
import Testing

@Suite("Routes of desired state with an idle timeout, a queue and a health block") struct StateRouteWordsTests {
    @Test("each is in force, and a reload changes it")
    func words() throws {
        let server = try ManualServer()
        let folder = try TemporaryFolder()
        let admin = "\(folder.path)/admin.sock"
        let entry = Place("::1", try FreePort.take())
        let state = { (more: String) in
            _ = try folder.write(
                "state.json",
                """
                {"format": "pipelined.state/1", "envs": [{"env_id": "e", "app_id": "a", "org_id": "o"}],
                 "instances": [{"instance_id": "i", "env_id": "e", "process_type": "w", "overlay_ipv6": "::1",
                   "status": "ready"}],
                 "routes": [{"route_id": "rt", "env_id": "e", "listen_port": \(entry.port), "protocol_hint": "tcp_raw",
                   "backend_process_type": "w", "backend_port": \(server.place.port), \(more)}]}
                """)
        }
        try state(
            "\"max_connections\": 1, \"queue\": 1, \"queue_timeout_seconds\": 60, \"idle_timeout_seconds\": 1, \"health\": \"quick\""
        )
        var config = ConfigText(settings: ["admin unix:\(admin)"], rawListeners: [entry])
        config.more = "health quick {\n    interval 100ms\n}\nroutes file state.json\n"
        let node = try Node(config.description, folder: folder)
        let first = try Socket.connect(to: entry)
        let waiting = try Socket.connect(to: entry)
        try awaitUntil("one waits") { try NodeStatus.total("connections_queued", admin) == 1 }
        let third = try Socket.connect(to: entry)
        #expect(try node.log(of: third.local).reason == "backend.route_queue_full client")
        // Nobody says anything: the first ends, and the second has its place.
        #expect(try node.log(of: first.local).reason == "relay.idle_timeout client")
        #expect(try node.log(of: waiting.local).reason == "relay.idle_timeout client")
        let probe = {
            try (Admin.json(["backends"], admin)["backends"] as? [[String: Any]])?.first?["probe"] as? String
        }
        try awaitUntil("it is probed") { try probe() == "up" }
        try state("\"health\": \"other\"")
        let reloaded = try Binary.run(["reload", "--admin", admin])
        #expect(
            reloaded.exit == .code(0) && reloaded.out.contains("health \"other\" is no health block"), "\(reloaded)")
    }
}
