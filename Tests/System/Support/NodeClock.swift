import TestSupport

/// A node's own clock, in its config: a listener that refuses who is silent for a time. A test that shows that something
/// does *not* happen in that time awaits such a refusal: the node has lived through it, however late it was run.
struct NodeClock {
    /// For the end of a config with one worker.
    let config: String
    private let entry: Place

    init(_ time: String) throws {
        entry = Place("::1", try FreePort.take())
        config = """

            pipeline clock {
                sni timeout \(time)
                backend
            }
            listen \(entry) tls_passthrough via clock

            """
    }

    /// Returns once that time has passed since this was called, for the node's worker as well.
    func pass(_ node: Node) throws {
        let client = try Socket.connect(to: entry)
        let place = try client.local
        let line = try node.log(of: place)
        guard line.reason == "sni.timeout client" else { throw Failure("no clock: \(line)") }
    }
}
