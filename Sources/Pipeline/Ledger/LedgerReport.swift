import Pipeline
import PipelineFlows

/// What a report aggregates by.
package enum ReportGroup: String, CaseIterable, Sendable {
    case org, app, env, instance, destination, port

    /// Owners: finer levels include the coarser names.
    package var isOwner: Bool { self != .destination && self != .port }
}

/// How much moved.
package struct ReportSums: Equatable, Sendable {
    package var connections: Int64 = 0
    /// From instances.
    package var bytesOut: Int64 = 0
    /// To instances.
    package var bytesIn: Int64 = 0
    /// Seconds since 1970.
    package var first = Int64.max
    package var last: Int64 = 0
    /// Distinct pairs of an address and a port, where a report counts them.
    package var destinations: Int64 = 0

    package var bytes: Int64 { LedgerSums.capped(bytesOut, bytesIn) }

    package init(
        connections: Int64 = 0, bytesOut: Int64 = 0, bytesIn: Int64 = 0, first: Int64 = .max, last: Int64 = 0,
        destinations: Int64 = 0
    ) {
        self.connections = connections
        self.bytesOut = bytesOut
        self.bytesIn = bytesIn
        self.first = first
        self.last = last
        self.destinations = destinations
    }

    mutating func add(_ other: ReportSums) {
        connections = LedgerSums.capped(connections, other.connections)
        bytesOut = LedgerSums.capped(bytesOut, other.bytesOut)
        bytesIn = LedgerSums.capped(bytesIn, other.bytesIn)
        first = min(first, other.first)
        last = max(last, other.last)
        destinations = LedgerSums.capped(destinations, other.destinations)
    }
}

/// What a flow used: a port of a transport, or a type of ICMP.
package struct ReportService: Hashable, Sendable {
    /// Port × 256 + protocol, as the ledger has it.
    let value: Int64
    init(_ value: Int64) { self.value = value }
    package init(port: UInt16, proto: UInt8) { value = Int64(port) << 8 | Int64(proto) }

    /// Aggregated for lack of room.
    package static let rest = ReportService(-1)
    package var isRest: Bool { value < 0 || port == 0 && proto == 6 }

    package var proto: UInt8 { UInt8(truncatingIfNeeded: value) }
    private var high: UInt16 { UInt16(truncatingIfNeeded: value >> 8) }
    private var isICMP: Bool { proto == 1 || proto == 58 }
    /// Nil: it has none.
    package var port: UInt16? { value < 0 || isICMP ? nil : high }
    package var icmpType: Int? { value >= 0 && isICMP ? Int(high >> 8) : nil }

    /// `tcp`, or the number where it has no name here.
    package var protocolName: String { ReportService.protocols.first { $0.number == proto }?.name ?? "\(proto)" }
    package static let protocols: [(name: String, number: UInt8)] = [
        ("tcp", 6), ("udp", 17), ("icmp", 1), ("icmpv6", 58), ("sctp", 132), ("gre", 47), ("esp", 50),
    ]

    /// `443/tcp`, `icmp type 8`.
    package var text: String {
        if isRest { return LedgerReader.rest }
        if let icmpType { return "\(protocolName) type \(icmpType)" }
        let isNamed = ReportService.protocols.contains { $0.number == proto }
        return "\(high)/\(isNamed ? "" : "protocol ")\(protocolName)"
    }
}

/// One group of a report.
package struct ReportRow: Equatable, Sendable {
    /// The owner, as far as the groups tell.
    package var owner = FlowNames()
    /// Nil: the report is not by destination.
    package var destination: IPAddress?
    package var service: ReportService?
    package var sums = ReportSums()

    package init(
        _ owner: FlowNames = FlowNames(), destination: IPAddress? = nil, service: ReportService? = nil,
        sums: ReportSums = ReportSums()
    ) {
        self.owner = owner
        self.destination = destination
        self.service = service
        self.sums = sums
    }

    /// An id, an address, `443/tcp`.
    package func name(_ group: ReportGroup) -> String {
        switch group {
        case .org: owner.org
        case .app: owner.app
        case .env: owner.env
        case .instance: owner.instance
        case .destination: destination.map { $0 == .unspecified ? LedgerReader.rest : "\($0)" } ?? ""
        case .port: service?.text ?? ""
        }
    }
}

/// What a range holds.
package struct Report: Equatable, Sendable {
    package let question: ReportQuestion
    /// The covered range; it may be wider than requested where detail has expired.
    package let from: Int64
    package let to: Int64
    /// In the requested order.
    package let rows: [ReportRow]
    /// Groups that are not in `rows`.
    package let others: Int
    package let total: ReportSums

    package init(
        _ question: ReportQuestion, from: Int64, to: Int64, rows: [ReportRow], others: Int, total: ReportSums
    ) {
        self.question = question
        self.from = from
        self.to = to
        self.rows = rows
        self.others = others
        self.total = total
    }
}

/// Volume over time of the largest groups.
package struct ReportSeries: Equatable, Sendable {
    package struct Volume: Equatable, Sendable {
        package var out: Int64 = 0
        package var into: Int64 = 0
        package init(out: Int64 = 0, into: Int64 = 0) { (self.out, self.into) = (out, into) }

        package static func + (a: Volume, b: Volume) -> Volume {
            Volume(out: LedgerSums.capped(a.out, b.out), into: LedgerSums.capped(a.into, b.into))
        }
        /// What is not in another; never less than nothing.
        static func - (a: Volume, b: Volume) -> Volume {
            Volume(out: max(0, a.out &- b.out), into: max(0, a.into &- b.into))
        }
        mutating func add(_ sums: ReportSums) { self = self + Volume(out: sums.bytesOut, into: sums.bytesIn) }
    }
    /// One colour of a picture.
    package struct Line: Equatable, Sendable {
        /// Nil: all others together.
        package let row: ReportRow?
        /// By the beginning of the step.
        package let volumes: [Int64: Volume]
        package init(_ row: ReportRow?, _ volumes: [Int64: Volume]) { (self.row, self.volumes) = (row, volumes) }
        package var total: Volume { volumes.values.reduce(Volume(), +) }
    }

    package let question: ReportQuestion
    /// Seconds of a step.
    package let step: Int64
    package let from: Int64
    package let to: Int64
    /// In the requested order, the others last.
    package let lines: [Line]

    package init(_ question: ReportQuestion, step: Int64, from: Int64, to: Int64, lines: [Line]) {
        self.question = question
        self.step = step
        self.from = from
        self.to = to
        self.lines = lines
    }
}
