import PipelineRuntime
import Testing

@Suite("The simulation catches a node that decides by an old table (S28)")
struct OldLookupTests {
    @Test("R1, R5: stages that answer from the table of the accept reach a backend that is another's")
    func isCaught() {
        var caught: Simulation?
        for seed in UInt64(0)..<3000 where caught == nil {
            var scenario = Scenario(seed: seed)
            scenario.looksUpOld = true
            let run = Simulation.run(scenario) { FakeKernel(world: $0) }
            if run.failure?.hasPrefix("S28: candidate") == true { caught = run }
        }
        #expect(caught != nil, "no seed notices a lookup in the table of the accept")
    }
}
