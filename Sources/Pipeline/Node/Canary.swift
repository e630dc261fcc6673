import CLinux
import Pipeline
import PipelineRuntime

/// What whoever asks for a reload says of it.
package struct ReloadOptions: Sendable {
    /// What a guard would refuse is meant.
    package var isConfirmed = false
    /// The program goes everywhere at once.
    package var skipsCanary = false

    package init(isConfirmed: Bool = false, skipsCanary: Bool = false) {
        (self.isConfirmed, self.skipsCanary) = (isConfirmed, skipsCanary)
    }

    /// For the journal, behind what it did.
    var text: String { (isConfirmed ? ", confirmed" : "") + (skipsCanary ? ", without a canary" : "") }
}

/// A new program beside the current one, as workers see it, and where they count.
///
/// Ownership: each snapshot with it holds it.
final class CanaryOffer {
    let program: Program
    private let settings: CanarySettings
    private let seed = HashSeed.random()
    private let memory: UnsafeMutablePointer<CanaryEvidence>

    init(_ program: Program, _ settings: CanarySettings, workers: Int) {
        self.program = program
        self.settings = settings
        memory = .allocate(capacity: 1)
        memory.initialize(to: CanaryEvidence(workers: workers, reasons: program.reasons.count))
    }

    deinit {
        memory.deinitialize(count: 1)
        memory.deallocate()
    }

    var evidence: UnsafePointer<CanaryEvidence> { UnsafePointer(memory) }
    var share: CanaryShare { CanaryShare(program: program, settings, seed: seed, evidence: evidence) }
    var tally: CanaryTally { CanaryTally(memory.pointee) }
}

/// A reload's new program that takes a share of new connections first (R29).
///
/// Threading: the control thread.
package final class Canary {
    package let settings: CanarySettings
    package let since = cl_wall_clock()
    package let began = Instant(nanoseconds: cl_now())
    package var program: Program { offer.program }
    let offer: CanaryOffer
    let identity: ProgramIdentity
    /// What was read with it, which goes everywhere with it: `route` blocks and the state file.
    var read: ReadConfig
    private var history = CanaryHistory()
    private(set) var nextLook: Instant

    /// Between two looks at the evidence.
    private static let lookInterval = TimeSpan.milliseconds(200)

    init(_ course: ReloadCourse, _ settings: CanarySettings, _ read: ReadConfig, workers: Int) {
        self.settings = settings
        self.read = read
        identity = course.identity
        offer = CanaryOffer(course.program, settings, workers: workers)
        nextLook = began + Canary.lookInterval
    }

    package var ends: Instant { began + settings.time }
    package var tally: CanaryTally { offer.tally }

    /// A reason that connections of a side failed for, and how often.
    package func failures(_ side: CanarySide) -> [(name: String, count: UInt64)] {
        (0..<program.reasons.count).map { ReasonCode(rawValue: UInt16(clamping: $0)) }
            .map { (program.reasons.text($0), offer.evidence.pointee.read(failed: $0, side)) }
            .filter { $0.1 > 0 }
            .sorted { $0.1 > $1.1 }
    }

    /// What is wrong with it; nil: nothing that is known.
    func look(_ now: Instant) -> CanaryFinding? {
        nextLook = now + Canary.lookInterval
        let tally = tally
        defer { history.add(tally, at: now) }
        return history.windows(tally, at: now).lazy.compactMap { CanaryJudge($0).finding }.first
    }

    /// The reason that most of its failures have had, for whoever reads what was found.
    var mostFailed: String {
        failures(.canary).first.map { " (mostly `\($0.name)`)" } ?? ""
    }
}

/// A canary that did not go everywhere: the config file has a program that does not run.
package struct CanaryRollback {
    package let at: UInt64
    /// Who: `node`, or as the admin socket has it.
    package let by: String
    package let why: String
    let identity: ProgramIdentity

    package var text: String {
        "the config file is not what runs: its program was a canary, and was rolled back by \(by): \(why)"
    }
}
