import Pipeline

/// Which connections have a line: by the reason of their end, and by sampling (R27). Pure: the same connection always
/// gets the same answer.
struct LogSelection {
    enum Verdict: Equatable {
        /// - Parameter rate: the line stands for so many connections.
        case line(rate: UInt64)
        /// `log only` or `log except`.
        case excluded
        case sampledOut
    }

    /// By reason code.
    private let isWanted: [Bool]
    /// Whether reasons that nobody knows are.
    private let wantsUnknown: Bool
    let sample: LogSample

    init(_ settings: LogSettings, _ reasons: ReasonTable) {
        sample = settings.sample
        wantsUnknown = settings.only.isEmpty
        isWanted = reasons.names.map { reason in
            guard let name = reason?.name else { return settings.only.isEmpty }
            let isNamed = { (patterns: [String]) in patterns.contains { ReasonPattern.matches($0, name) } }
            return (settings.only.isEmpty || isNamed(settings.only)) && !isNamed(settings.except)
        }
    }

    /// What a line about refused connections stands for.
    var rateOfRefusals: UInt64 { sample.population == .all ? sample.every : 1 }

    func verdict(_ record: ConnectionRecord) -> Verdict {
        let code = Int(record.reason.rawValue)
        guard code < isWanted.count ? isWanted[code] : wantsUnknown else { return .excluded }
        guard sample.every > 1, isSampled(record) else { return .line(rate: 1) }
        // By what no client can foresee: nobody stays out of the log by choice.
        let number = Hashing.mix(UniqueID.processPrefix ^ record.serial)
        return number % sample.every == 0 ? .line(rate: sample.every) : .sampledOut
    }

    private func isSampled(_ record: ConnectionRecord) -> Bool {
        switch sample.population {
        case .closed:
            record.reason == RuntimeReason.closedByClient.code || record.reason == RuntimeReason.closedByUpstream.code
        case .relayed: record.isRelayed
        case .all: true
        }
    }
}
