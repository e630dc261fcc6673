import Foundation

/// A desired-state document of one env, for tests that change it from revision to revision.
struct DesiredState: Sendable, CustomStringConvertible {
    struct Instance: Sendable {
        var id: String
        var address = "::1"
        var status = "ready"
        var grace = 1
    }
    struct Route: Sendable {
        var id: String
        var port: UInt16
        var onDelete = "keep"
    }

    var revision = 1
    var backendPort: UInt16
    var instances: [Instance]
    var routes: [Route]

    var description: String {
        let instances = instances.map {
            """
            {"instance_id":"\($0.id)","env_id":"e","process_type":"w","overlay_ipv6":"\($0.address)",
             "status":"\($0.status)","drain_grace_seconds":\($0.grace)}
            """
        }
        let routes = routes.map {
            """
            {"route_id":"\($0.id)","env_id":"e","hostname":null,"listen_port":\($0.port),"protocol_hint":"tcp_raw",
             "backend_process_type":"w","backend_port":\(backendPort),"on_delete":"\($0.onDelete)"}
            """
        }
        return """
            {"format":"pipelined.state/1","revision":\(revision),
             "envs":[{"env_id":"e","app_id":"a","org_id":"o"}],
             "instances":[\(instances.joined(separator: ","))],
             "routes":[\(routes.joined(separator: ","))]}
            """
    }
}
