// The KVM interface as Swift can use it: request numbers that the importer cannot evaluate, one ioctl
// whose result carries errno, and accessors for structures that end in a flexible array.
// No logic, no allocation. Source: [KVM-API].
#ifndef CKVM_H
#define CKVM_H

#include <errno.h>
#include <linux/kvm.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/ioctl.h>

#define CKVM_REQUEST(name) static const unsigned long CKVM_##name = KVM_##name

CKVM_REQUEST(GET_API_VERSION);
CKVM_REQUEST(CREATE_VM);
CKVM_REQUEST(CHECK_EXTENSION);
CKVM_REQUEST(GET_VCPU_MMAP_SIZE);
CKVM_REQUEST(GET_SUPPORTED_CPUID);
CKVM_REQUEST(GET_MSR_INDEX_LIST);
CKVM_REQUEST(CREATE_VCPU);
CKVM_REQUEST(SET_USER_MEMORY_REGION);
CKVM_REQUEST(SET_TSS_ADDR);
CKVM_REQUEST(SET_IDENTITY_MAP_ADDR);
CKVM_REQUEST(CREATE_IRQCHIP);
CKVM_REQUEST(CREATE_PIT2);
CKVM_REQUEST(IRQ_LINE);
CKVM_REQUEST(SET_GSI_ROUTING);
CKVM_REQUEST(SIGNAL_MSI);
CKVM_REQUEST(IOEVENTFD);
CKVM_REQUEST(ENABLE_CAP);
CKVM_REQUEST(REGISTER_COALESCED_MMIO);
CKVM_REQUEST(UNREGISTER_COALESCED_MMIO);
CKVM_REQUEST(X86_SET_MSR_FILTER);
CKVM_REQUEST(RUN);
CKVM_REQUEST(GET_REGS);
CKVM_REQUEST(SET_REGS);
CKVM_REQUEST(GET_SREGS);
CKVM_REQUEST(SET_SREGS);
CKVM_REQUEST(GET_MSRS);
CKVM_REQUEST(SET_MSRS);
CKVM_REQUEST(GET_FPU);
CKVM_REQUEST(SET_FPU);
CKVM_REQUEST(GET_XSAVE);
CKVM_REQUEST(GET_XSAVE2);
CKVM_REQUEST(SET_XSAVE);
CKVM_REQUEST(GET_XCRS);
CKVM_REQUEST(SET_XCRS);
CKVM_REQUEST(GET_DEBUGREGS);
CKVM_REQUEST(SET_DEBUGREGS);
CKVM_REQUEST(GET_LAPIC);
CKVM_REQUEST(SET_LAPIC);
CKVM_REQUEST(GET_MP_STATE);
CKVM_REQUEST(SET_MP_STATE);
CKVM_REQUEST(GET_VCPU_EVENTS);
CKVM_REQUEST(SET_VCPU_EVENTS);
CKVM_REQUEST(SET_CPUID2);
CKVM_REQUEST(GET_CPUID2);
CKVM_REQUEST(SET_SIGNAL_MASK);
CKVM_REQUEST(INTERRUPT);
CKVM_REQUEST(NMI);
CKVM_REQUEST(SET_GUEST_DEBUG);
CKVM_REQUEST(TRANSLATE);
CKVM_REQUEST(GET_TSC_KHZ);
CKVM_REQUEST(SET_TSC_KHZ);
CKVM_REQUEST(KVMCLOCK_CTRL);

#undef CKVM_REQUEST

// One ioctl. Returns its result, or -errno: read before anything can disturb it.
static inline int ckvm_ioctl(int fd, unsigned long request, unsigned long argument) {
    int result = ioctl(fd, request, argument);
    return result < 0 ? -errno : result;
}

static inline int ckvm_ioctl_pointer(int fd, unsigned long request, void *_Nonnull argument) {
    int result = ioctl(fd, request, argument);
    return result < 0 ? -errno : result;
}

static inline struct kvm_cpuid_entry2 *_Nonnull ckvm_cpuid_entries(struct kvm_cpuid2 *_Nonnull list) {
    return list->entries;
}

static inline struct kvm_msr_entry *_Nonnull ckvm_msr_entries(struct kvm_msrs *_Nonnull list) {
    return list->entries;
}

static inline uint32_t *_Nonnull ckvm_msr_indices(struct kvm_msr_list *_Nonnull list) {
    return list->indices;
}

static inline struct kvm_irq_routing_entry *_Nonnull ckvm_routing_entries(struct kvm_irq_routing *_Nonnull list) {
    return list->entries;
}

// The bytes an emulation failure reports; the union around them is anonymous.
static inline uint32_t ckvm_emulation_byte_count(const struct kvm_run *_Nonnull run) {
    return (run->emulation_failure.ndata >= 1 &&
            (run->emulation_failure.flags & KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES))
               ? run->emulation_failure.insn_size : 0;
}

static inline uint8_t ckvm_emulation_byte(const struct kvm_run *_Nonnull run, uint32_t index) {
    return run->emulation_failure.insn_bytes[index & 15];
}

static inline uint64_t ckvm_internal_data(const struct kvm_run *_Nonnull run, uint32_t index) {
    return run->internal.data[index & 15];
}

// immediate_exit is written by other threads while KVM reads it.
static inline void ckvm_set_immediate_exit(struct kvm_run *_Nonnull run, uint8_t value) {
    __atomic_store_n(&run->immediate_exit, value, __ATOMIC_SEQ_CST);
}

static inline struct kvm_sync_regs *_Nonnull ckvm_sync_regs(struct kvm_run *_Nonnull run) {
    return &run->s.regs;
}

#endif
