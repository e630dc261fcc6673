import Pipeline

/// The result of a query: the first rows, their number, and the total.
struct LedgerTally {
    typealias Entry = (key: LedgerQuery.Key, sums: ReportSums)

    private(set) var rows: [Entry] = []
    private(set) var count = 0
    private(set) var total = ReportSums()
    /// The owners of the found flows, if a question names one.
    private(set) var seen: Set<Int64> = []
    private let query: LedgerQuery
    private var largest: LargestOf<Entry>

    init(_ query: LedgerQuery, _ range: LedgerRange) throws {
        self.query = query
        let order = query.question.order
        largest = LargestOf(query.question.top) { a, b in
            let (first, second) = (a.sums.figures(order), b.sums.figures(order))
            return first == second ? query.precedes(a.key, b.key) : first > second
        }
        if query.question.needsDestination { try merge(range) } else { try add(range) }
        rows = largest.sorted
    }

    private var namesSomebody: Bool {
        query.question.instance != nil || query.question.env != nil || query.question.app != nil
    }

    private mutating func found(_ key: LedgerQuery.Key, _ sums: ReportSums) {
        count += 1
        largest.add((key, sums))
    }

    private mutating func add(_ range: LedgerRange) throws {
        var sums: [LedgerQuery.Key: ReportSums] = [:]
        let namesSomebody = namesSomebody
        for part in range.parts {
            try query.each(part) { _, owner, service, growth in
                guard let key = query.key(owner, service) else { return }
                if namesSomebody { seen.insert(owner) }
                sums[key, default: ReportSums()].add(growth)
            }
        }
        for (key, sums) in sums {
            total.add(sums)
            found(key, sums)
        }
    }

    /// Processed by destination, without storing a million of them, unless rows have another key too.
    private mutating func merge(_ range: LedgerRange) throws {
        let question = query.question
        let (isByDestination, counts) = (question.by.contains(.destination), question.order == .destinations)
        let namesSomebody = namesSomebody
        var all: [LedgerQuery.Key: ReportSums] = [:]
        var here = Here()
        var merge = try DestinationMerge(query.db, range, only: question.destination)
        try merge.run { owner, service, growth in
            guard let key = query.key(owner, service) else { return }
            if namesSomebody { seen.insert(owner) }
            here.add(key, service, growth, counts: counts)
        } end: { address in
            here.finish(counts: counts) { key, sums in
                total.add(sums)
                guard isByDestination else {
                    all[key, default: ReportSums()].add(sums)
                    return
                }
                found(LedgerQuery.Key(owner: key.owner, destination: address, service: key.service), sums)
            }
        }
        // Two groups' pairs may be the same ones.
        if counts { total.destinations = here.distinct }
        for (key, sums) in all { found(key, sums) }
    }

    /// What goes to one destination.
    private struct Here {
        private struct Pair: Hashable {
            let key: LedgerQuery.Key
            let service: Int64
        }
        /// Most have one key: it is at hand.
        private var only: LedgerQuery.Key?
        private var sums = ReportSums()
        private var more: [LedgerQuery.Key: ReportSums] = [:]
        private var pairs: Set<Pair> = []
        /// Pairs of an address and a port so far.
        private(set) var distinct: Int64 = 0

        mutating func add(_ key: LedgerQuery.Key, _ service: Int64, _ growth: ReportSums, counts: Bool) {
            var growth = growth
            if counts { growth.destinations = pairs.insert(Pair(key: key, service: service)).inserted ? 1 : 0 }
            if only == nil { only = key }
            if only == key { sums.add(growth) } else { more[key, default: ReportSums()].add(growth) }
        }

        mutating func finish(counts: Bool, _ body: (LedgerQuery.Key, ReportSums) -> Void) {
            guard let key = only else { return }
            body(key, sums)
            for (key, sums) in more { body(key, sums) }
            if counts { distinct += Int64(more.isEmpty ? pairs.count : Set(pairs.map(\.service)).count) }
            (only, sums) = (nil, ReportSums())
            // Emptying a large table costs what filling it did.
            if !more.isEmpty { more = [:] }
            if pairs.count > 32 { pairs = [] } else { pairs.removeAll(keepingCapacity: true) }
        }
    }
}

extension ReportSums {
    /// In which order rows stand.
    fileprivate func figures(_ order: ReportQuestion.Order) -> (Int64, Int64) {
        switch order {
        case .bytes: (bytes, connections)
        case .connections: (connections, bytes)
        case .destinations: (destinations, connections)
        }
    }
}
