import Glibc
import Testing
import VMCore
@testable import KVM

@Suite struct KVMSystemTests {
    @Test func aMissingDeviceSaysHowToGetIt() {
        #expect {
            _ = try KVMSystem(path: "/nonexistent/kvm")
        } throws: { error in
            guard case EngineError.unavailable(let reason, let remedy) = error else { return false }
            return reason.contains("/nonexistent/kvm") && remedy.contains("modprobe")
        }
    }

    @Test func aForbiddenDeviceSaysWhichGroup() {
        guard case .notPermitted(_, let remedy) = KVMSystem.openError(path: "/dev/kvm", errno: EACCES) else {
            Issue.record("not notPermitted")
            return
        }
        #expect(remedy.contains("usermod -aG kvm"))
    }

    @Test func whatIsNotKVMIsRefused() {
        #expect {
            _ = try KVMSystem(path: "/dev/null")
        } throws: { error in
            guard case EngineError.unsupported = error else { return false }
            return true
        }
    }
}
