import CLinux
import Pipeline
import PipelineRuntime
import PipelineText
import PipelineThreads

/// Whether this host has the addresses that `source` names: says which it lacks, and when they are there. A connection
/// passes over those that are not (`backend.no_source` if none is left); nothing here decides that.
///
/// Threading: the control thread.
package struct SourceWatch {
    /// While some are missing: a route or a sysctl may bring one, which nobody reports.
    private static let interval = TimeSpan.seconds(10)
    /// The most addresses that are looked at, and that a line shows.
    private static let limit = 16384
    private static let shown = 20

    private var sources: [SourceSpec] = []
    private var missing: Set<IPAddress> = []
    /// Of some `source` all addresses of a family are missing.
    private var isWhole = false
    private var next: Instant?

    /// Nil: there is nothing to look at.
    var nextLook: Instant? { sources.isEmpty ? nil : next }

    /// Why this node can't run the program; nil: it can.
    static func obstacle(to program: Program) -> String? {
        guard program.connectsAsClients else { return nil }
        let error = LinuxKernel.refusesForeignSources()
        guard error != 0 else { return nil }
        let cause = error == ErrorNumber.notPermitted ? "no permission" : kernelError(error)
        return
            "can't connect from clients' addresses (`source client`, `original_destination from instance`): "
            + "\(cause); run with CAP_NET_ADMIN (systemd: AmbientCapabilities=), or as root"
    }

    mutating func follow(_ program: Program) {
        sources = program.sources.filter { if case .addresses = $0 { true } else { false } }
        missing = missing.intersection(Set(sources.flatMap(SourceWatch.all)))
        next = Instant(nanoseconds: 0)
    }

    mutating func addressesChanged() { next = Instant(nanoseconds: 0) }

    private static func all(_ source: SourceSpec) -> [IPAddress] {
        source.addresses(isIPv4: true) + source.addresses(isIPv4: false)
    }

    mutating func look(_ now: Instant, _ log: ControlLog) {
        guard let due = nextLook, due <= now else { return }
        let before = missing
        (missing, isWhole) = SourceWatch.missing(sources)
        next = missing.isEmpty ? nil : now + SourceWatch.interval
        say("source_missing", "\(text); \(SourceWatch.remedy)", missing.subtracting(before), log)
        say("source_back", "addresses of `source` are on this host again", before.subtracting(missing), log)
    }

    /// - Returns: those that this host can't send from, and whether a family of some source has no other.
    private static func missing(_ sources: [SourceSpec]) -> (addresses: Set<IPAddress>, isWhole: Bool) {
        var known: [IPAddress: Bool] = [:]
        var isWhole = false
        for source in sources {
            for isIPv4 in [true, false] {
                var isAny = false
                let addresses = source.addresses(isIPv4: isIPv4).prefix(max(0, limit - known.count))
                for address in addresses {
                    let isHere = known[address] ?? isHere(address)
                    known[address] = isHere
                    isAny = isAny || isHere
                }
                if !addresses.isEmpty, !isAny { isWhole = true }
            }
        }
        return (Set(known.filter { !$0.value }.keys), isWhole)
    }

    private static func isHere(_ address: IPAddress) -> Bool {
        var at = cl_endpoint(Endpoint(address, 0))
        return cl_can_bind(&at) != -ErrorNumber.addressNotAvailable
    }

    // MARK: Saying it

    private static let remedy = "add them (`ip addr add`), or change `source` and reload"

    private var text: String {
        let what = missing.count == 1 ? "address of `source` is" : "addresses of `source` are"
        return "\(missing.count) \(what) not on this host: "
            + (isWhole
                ? "connections that need one of them are refused (`backend.no_source`)"
                : "connections come from the others")
    }

    /// For `status`.
    package var problems: [String] {
        missing.isEmpty ? [] : ["\(text): \(SourceWatch.list(missing).joined(separator: " "))"]
    }

    private static func list(_ addresses: Set<IPAddress>) -> [String] {
        let rest = addresses.count > shown ? ["and \(addresses.count - shown) more"] : []
        return addresses.sorted().prefix(shown).map(\.description) + rest
    }

    private func say(_ event: String, _ message: String, _ addresses: Set<IPAddress>, _ log: ControlLog) {
        guard !addresses.isEmpty else { return }
        log.say(event, message) { line in
            line.list("addresses", SourceWatch.list(addresses)) { $0.string($1) }
            line.field("missing", missing.count)
        }
    }
}
