import Pipeline
import PipelineRuntime

/// Every listening socket of a node, opened before anything serves: one per listener and worker.
struct ListenerSet {
    /// By worker.
    private(set) var byWorker: [[WorkerListener]]
    /// Where the node listens, port 0 replaced by what the kernel chose.
    let endpoints: [Endpoint]

    /// Opens all of them, or none: on failure those that did open are closed, and every listener that did not is named.
    static func open(
        _ specs: [ListenerSpec], workers: Int, settings: NodeSettings
    ) -> (set: ListenerSet?, failures: [ListenError]) {
        var byWorker = [[WorkerListener]](repeating: [], count: workers)
        var endpoints: [Endpoint] = []
        var failures = taken(specs, settings)
        guard failures.isEmpty else { return (nil, failures) }
        for (index, spec) in specs.enumerated() {
            var spec = spec
            for worker in 0..<workers {
                do throws(ListenError) {
                    let socket = try ListenerSocket.open(spec, settings: settings)
                    let bound = socket.endpoint
                    // What the kernel chose for the first worker is where the others join it.
                    spec = ListenerSpec(endpoint: bound, hint: spec.hint, chain: spec.chain, line: spec.line)
                    byWorker[worker].append(
                        WorkerListener(
                            descriptor: socket.release(), spec: spec, bound: bound, index: UInt16(clamping: index)))
                } catch {
                    failures.append(error)
                    break
                }
            }
            endpoints.append(spec.endpoint)
        }
        let set = ListenerSet(byWorker: byWorker, endpoints: endpoints)
        guard failures.isEmpty else {
            set.close()
            return (nil, failures)
        }
        return (set, [])
    }

    /// Those that can't be had for this node alone. Workers share a port by `SO_REUSEPORT`, and so would a second node
    /// of the same user, which would take half of the first one's connections without a word.
    private static func taken(_ specs: [ListenerSpec], _ settings: NodeSettings) -> [ListenError] {
        specs.compactMap { spec in
            do throws(ListenError) {
                try ListenerSocket.open(spec, settings: settings, reusePort: false).close()
                return nil
            } catch {
                return error
            }
        }
    }

    private init(byWorker: [[WorkerListener]], endpoints: [Endpoint]) {
        self.byWorker = byWorker
        self.endpoints = endpoints
    }

    /// For when no worker took them over.
    func close() {
        for listener in byWorker.joined() { ListenerSocket.close(listener.descriptor) }
    }
}
