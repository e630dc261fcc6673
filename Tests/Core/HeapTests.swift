import Pipeline
import Testing

@Suite("Heaps")
struct HeapTests {
    @Test(
        "the least comes out first, whatever went in, came out and moved on between", arguments: 0..<20 as Range<UInt64>
    )
    func order(seed: UInt64) {
        var random = SplitMix64(seed: seed)
        var heap = Heap<UInt64>()
        var model: [UInt64] = []
        for _ in 0..<2000 {
            switch random.below(5) {
            case 0, 1:
                let number = random.next() % 97
                heap.push(number)
                model.append(number)
            case 2:
                let least = model.min()
                if let least, let place = model.firstIndex(of: least) { model.remove(at: place) }
                let popped = heap.pop()
                #expect(popped == least)
            case 3 where !model.isEmpty:
                // The least grows, or is done.
                let step = random.next() % 50
                guard let least = model.min(), let place = model.firstIndex(of: least) else { break }
                if step < 10 { model.remove(at: place) } else { model[place] += step }
                heap.advanceFirst { number in
                    number += step
                    return step >= 10
                }
            default: break
            }
            #expect(heap.first == model.min() && heap.count == model.count)
        }
        var left: [UInt64] = []
        while let number = heap.pop() { left.append(number) }
        #expect(left == model.sorted())
    }

    @Test("the largest of many are those that sorting all of them gives", arguments: [0, 1, 7, 300, 2000, 6000])
    func largest(limit: Int) {
        let numbers = (0..<5000).map { Hashing.mix(UInt64($0)) % 3000 }
        var largest = LargestOf<UInt64>(limit, by: >)
        for number in numbers { largest.add(number) }
        #expect(largest.sorted == Array(numbers.sorted(by: >).prefix(limit)))
    }
}
