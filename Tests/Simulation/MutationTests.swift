import PipelineRuntime
import Testing

@Suite("The simulation catches what is broken")
struct MutationTests {
    static let seeds = 6000

    @Test("some of the first seeds fails on each mutation", arguments: Mutation.allCases)
    func isCaught(mutation: Mutation) {
        var caught: Simulation?
        for seed in UInt64(0)..<UInt64(Self.seeds) where caught == nil {
            let run = Simulation.run(Scenario(seed: seed)) { MutantKernel(mutation, $0) }
            if let failure = run.failure, failure.hasPrefix(mutation.invariant ?? "") { caught = run }
        }
        #expect(caught != nil, "no seed notices a worker that \(mutation.rawValue)")
    }
}
