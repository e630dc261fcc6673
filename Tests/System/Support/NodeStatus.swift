import Foundation

/// What `status` says of a node's workers.
enum NodeStatus {
    /// Of all workers together.
    static func total(_ metric: String, _ admin: String) throws -> Int {
        let result = try Binary.run(["status", "--json", "--admin", admin])
        let json = try JSONSerialization.jsonObject(with: Data(result.out.utf8)) as? [String: Any]
        let workers = json?["workers"] as? [[String: Any]] ?? []
        return workers.reduce(0) { $0 + ($1[metric] as? Int ?? 0) }
    }
}
