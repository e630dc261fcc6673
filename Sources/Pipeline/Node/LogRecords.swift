import CLinux
import Pipeline
import PipelineRuntime

/// Ended connections, from the workers' rings to lines.
///
/// Threading: the writer's thread.
extension LogWriter {
    /// True if there is more.
    func takeRecords(_ now: Instant, isLast: Bool) -> Bool {
        guard connections != nil else { return false }
        var isMore = false
        let rings = connections?.rings ?? []
        for ring in rings {
            var count = 0
            while count < LogWriter.recordsInTurn, let record = ring.pop() {
                count += 1
                take(record, now)
            }
            takenInTurns += count
            isMore = isMore || count == LogWriter.recordsInTurn
        }
        for summary in isLast && !isMore ? budget.rest() : budget.due(now) { write(summary) }
        refusalsSummed.store(budget.summed, ordering: .relaxed)
        if !isMore { sayLost() }
        return isMore
    }

    /// Reports records that workers dropped, like lines that the stream dropped.
    private func sayLost() {
        guard let connections, connections.writes else { return }
        let (lost, said) = (connections.lost(), connections.saidLost)
        guard lost > said else { return }
        if out.sayMissing(lost - said, "connections ended faster than their lines could be written") {
            self.connections?.saidLost = lost
        }
    }

    private func take(_ record: ConnectionRecord, _ now: Instant) {
        connections?.watch?.enqueue(record)
        connections?.paths?.enqueue(record)
        guard connections?.writes == true else { return }
        switch selection.verdict(record) {
        case .excluded: excludedCount.wrappingAdd(1, ordering: .relaxed)
        case .sampledOut: sampledOutCount.wrappingAdd(1, ordering: .relaxed)
        case .line(let rate):
            guard budget.admits(record, now) else { return }
            connections?.log.append(record, sampleRate: rate)
            sendLine()
        }
    }

    private func write(_ summary: RefusalBudget.Summary) {
        connections?.log.append(summary, time: cl_wall_clock(), sampleRate: selection.rateOfRefusals)
        sendLine()
    }

    private func sendLine() {
        if let bytes = connections?.log.bytes { out.append(bytes) }
        connections?.log.removeAll()
    }
}
