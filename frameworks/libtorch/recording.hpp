// What goes into and comes out of each layer while a function runs.
//
// LibTorch's modules have no hooks (https://github.com/pytorch/pytorch/issues/25888), but its dispatcher tells of every
// operation (ATen/record_function.h, the profiler's own source). A layer is the outermost operation that is given one
// of the layer's parameters beside another tensor: that one is the layer's input, the operation's result its output.

#pragma once

// RecordFunction has one more member without, which the library never sets: inputs() then fails by chance.
#ifndef NDEBUG
#error "Expected -DNDEBUG, with which the wheel's libraries are compiled (torch.__config__.show()). Received: none"
#endif

#include <exception>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <ATen/record_function.h>
#include <torch/torch.h>

namespace recording {

struct Seen {
    torch::Tensor input, output;
};

class Recording {
  public:
    /// Begins. Of a layer that is called more than once, the first call counts.
    explicit Recording(const torch::nn::Module& model) {
        for (auto& module : model.named_modules("", false))
            for (auto& parameter : module.value()->parameters(false))
                layers_[parameter.unsafeGetTensorImpl()] = module.key();
        current_ = this;
        handle_ = at::addThreadLocalCallback(at::RecordFunctionCallback(begin, end)
                                                 .needsInputs(true)
                                                 .needsOutputs(true)
                                                 .scopes({at::RecordScope::FUNCTION}));
    }
    ~Recording() {
        at::removeCallback(handle_);
        current_ = nullptr;
    }
    Recording(const Recording&) = delete;

    std::map<std::string, Seen> seen;
    std::vector<std::string> order;  // of the layers, as they were called

    /// Throw what went wrong in a callback: the dispatcher only prints it.
    void check() const {
        if (failure_) std::rethrow_exception(failure_);
    }

  private:
    struct Call : at::ObserverContext {
        explicit Call(std::string layer) : layer(std::move(layer)) {}
        std::string layer;
    };

    static std::unique_ptr<at::ObserverContext> begin(const at::RecordFunction& function) {
        try {
            return current_->called(function);
        } catch (...) {
            current_->failure_ = std::current_exception();
            return nullptr;
        }
    }

    static void end(const at::RecordFunction& function, at::ObserverContext* call) {
        try {
            if (call) current_->returned(function, static_cast<Call*>(call)->layer);
        } catch (...) {
            current_->failure_ = std::current_exception();
        }
    }

    std::unique_ptr<at::ObserverContext> called(const at::RecordFunction& function) {
        std::optional<std::string> layer;
        torch::Tensor input;
        auto look = [&](const torch::Tensor& tensor) {
            if (!tensor.defined()) return;
            auto found = layers_.find(tensor.unsafeGetTensorImpl());
            if (found != layers_.end())
                layer = layer.value_or(found->second);
            else if (!input.defined())
                input = tensor;
        };
        for (auto& value : function.inputs()) {
            if (value.isTensor()) look(value.toTensor());
            if (value.isTensorList())
                for (const torch::Tensor& tensor : value.toTensorVector()) look(tensor);
        }
        if (!layer || !input.defined() || !seen.try_emplace(*layer).second) return nullptr;
        order.push_back(*layer);
        seen[*layer].input = input.detach().clone();  // a later operation in place must not change it
        return std::make_unique<Call>(*layer);
    }

    void returned(const at::RecordFunction& function, const std::string& layer) {
        if (function.outputs().empty() || !function.outputs()[0].isTensor()) return;
        seen[layer].output = function.outputs()[0].toTensor().detach().clone();
    }

    inline static thread_local Recording* current_ = nullptr;
    std::map<const c10::TensorImpl*, std::string> layers_;
    std::exception_ptr failure_;
    at::CallbackHandle handle_;
};

}  // namespace recording
