-- Whether a partition is still its owner's and complete, and the events that wait, after the connection was lost.
-- KEYS: the partition. ARGV: epoch, number of the last batch that was answered.
local now = redis.call('HMGET', KEYS[1], 'epoch', 'sequence', 'b' .. (ARGV[1] + 1))
local epoch, mine = tonumber(now[1]), tonumber(ARGV[1])
if not epoch or epoch < mine or (epoch == mine and tonumber(now[2]) < tonumber(ARGV[2])) then
  return {'lost'}
end
if epoch > mine then
  return {'fenced', now[3]}
end
local waiting = {'done'}
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  if string.sub(all[i], 1, 1) == 'i' then
    waiting[#waiting + 1] = all[i]
    waiting[#waiting + 1] = all[i + 1]
  end
end
return waiting
