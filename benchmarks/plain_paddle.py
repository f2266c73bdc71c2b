"""The train and the test loop of Paddle's guide, run eagerly as there,
https://www.paddlepaddle.org.cn/documentation/docs/en/guides/beginner/train_eval_predict_en.html
"""

import paddle
import paddle.nn.functional as F


def make(version, text):
    model = version.build_model()
    scheduler = None
    if text == "cnn":
        optimizer = paddle.optimizer.Momentum(version.LEARNING_RATE, version.MOMENTUM, parameters=model.parameters())
    elif text == "gpt":
        scheduler = paddle.optimizer.lr.CosineAnnealingDecay(version.LEARNING_RATE, version.DECAY_STEPS)
        clip = paddle.nn.ClipGradByGlobalNorm(version.CLIP_NORM)
        optimizer = paddle.optimizer.AdamW(scheduler, parameters=model.parameters(), grad_clip=clip)
    elif text != "resnet50":
        optimizer = paddle.optimizer.Adam(version.LEARNING_RATE, parameters=model.parameters())

    def test(batches):
        model.eval()
        with paddle.no_grad():
            for images, _ in batches:
                predicts = model(images)
        return predicts

    def train(batches):
        model.train()
        for images, labels in batches:
            predicts = model(images)
            if text == "densenet121":
                loss = F.binary_cross_entropy_with_logits(predicts, labels.astype(predicts.dtype))
            elif text == "gpt":
                loss = F.cross_entropy(predicts.flatten(0, 1), labels.flatten())
            else:
                loss = F.cross_entropy(predicts, labels)
            loss.backward()
            optimizer.step()
            if scheduler:
                scheduler.step()
            optimizer.clear_grad()
        return loss

    def eager(batches):
        paddle.jit.enable_to_static(False)  # of which the guide says nothing; versions compile their models with it
        try:
            return (test if text == "resnet50" else train)(batches)
        finally:
            paddle.jit.enable_to_static(True)

    return eager
