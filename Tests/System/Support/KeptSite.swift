import TestSupport

/// A node that keeps desired state, of one raw listener, and where things of it are.
protocol KeptSite {
    var folder: TemporaryFolder { get }
    var entry: Place { get }
}

extension KeptSite {
    var admin: String { folder.path + "/admin.sock" }
    var data: String { folder.path + "/data" }

    /// - Parameters:
    ///   - routes: as `routes` has it: `push`, `file state.json`.
    ///   - more: settings of the node.
    func config(_ routes: String = "push", more: [String] = []) -> String {
        let config = ConfigText(
            settings: ["admin unix:\(admin)", "state \(data)", "drain_timeout 1s"] + more, rawListeners: [entry])
        return config.description + "\nroutes \(routes)\n"
    }

    func start(_ routes: String = "push") throws -> Node { try Node(config(routes), folder: folder) }
}
