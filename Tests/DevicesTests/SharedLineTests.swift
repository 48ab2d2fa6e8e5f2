import Devices
import Testing
import WindhoverTesting

@Suite struct SharedLineTests {
    @Test func isHighWhileAnyInputIs() {
        let wire = RecordingLine()
        let shared = SharedLine(wire)
        let (one, other) = (shared.input(), shared.input())
        one.setLevel(true)
        one.setLevel(true)
        #expect(wire.isHigh)
        other.setLevel(true)
        one.setLevel(false)
        one.setLevel(false)
        #expect(wire.isHigh)
        other.setLevel(false)
        #expect(!wire.isHigh)
        #expect(wire.risingEdges == 1)
        one.setLevel(false)
        #expect(!wire.isHigh)
    }
}
